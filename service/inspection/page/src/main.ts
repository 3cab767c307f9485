// The page begins here.

import { App } from "./app";
import { File, readInlined } from "./data/inlined";
import { Service } from "./data/source";

const inlined = readInlined();
if (inlined && location.hash === "") history.replaceState(null, "", `#${inlined.address}`);
const source = inlined ? new File(inlined) : new Service();
document.body.append(new App(source).element);
