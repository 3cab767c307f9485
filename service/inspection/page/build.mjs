// Builds the page into ../static, or with --check says whether what is there is what would be built.
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "static");

async function bundled(entry) {
  const result = await build({
    absWorkingDir: here,
    entryPoints: [entry],
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    legalComments: "inline",
    charset: "utf8",
    write: false,
  });
  return result.outputFiles[0].text;
}

const files = {
  "page.js": await bundled("src/main.ts"),
  "page.css": await bundled("styles/page.css"),
  "page.html": await readFile(join(here, "page.html"), "utf8"),
};

const differing = [];
for (const [name, text] of Object.entries(files)) {
  const path = join(target, name);
  if (process.argv.includes("--check")) {
    const there = await readFile(path, "utf8").catch(() => null);
    if (there !== text) differing.push(name);
  } else {
    await writeFile(path, text);
    console.log(`${name}  ${(text.length / 1000).toFixed(1)} kB`);
  }
}
if (differing.length > 0) {
  console.error(
    `service/inspection/static is not what the sources make: ${differing.join(", ")}. Run make page.`,
  );
  process.exitCode = 1;
}
