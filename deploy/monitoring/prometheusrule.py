"""The alerts as the Prometheus operator takes them: run this file to write the object anew.

`rules/anatomy.yaml` is what Prometheus itself reads and what promtool tests; a `PrometheusRule` has
the same under `spec`. kustomize can't put one file into another, so the object is kept beside its
component, and a test holds it to the rules.
"""

from pathlib import Path

HERE = Path(__file__).parent
RULES = HERE / "rules" / "anatomy.yaml"
OBJECT = HERE.parent / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"

HEAD = """\
# Written by deploy/monitoring/prometheusrule.py from deploy/monitoring/rules/anatomy.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: anatomy
spec:
"""


def text_of(rules: str) -> str:
    """The object that has `rules`, the text of a file for Prometheus, under `spec`."""
    return HEAD + "".join(
        f"  {line}" if line.strip() else line for line in rules.splitlines(keepends=True)
    )


if __name__ == "__main__":
    OBJECT.write_text(text_of(RULES.read_text(encoding="utf-8")), encoding="utf-8")
