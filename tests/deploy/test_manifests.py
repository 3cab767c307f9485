"""The Kubernetes manifests: rendered where kubectl is found, and validated with typos refused."""

import ast
import copy
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from service.draining import MIN_DRAINING, TOLD_S, pod_timeout_s, replica_timeout_s
from service.serve_config import arguments
from service.settings import ServiceSettings
from tests.support.manifests import KUBERNETES, ROOT, render

OVERLAYS = sorted(path.parent for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))
WITH_RAY = [folder for folder in OVERLAYS if folder.name != "plain"]
NOT_KUBERNETES_OWN = ("RayService", "HTTPRoute", "PodMonitor", "PrometheusRule")
HAPROXY_FLAGS = {
    "RAY_SERVE_ENABLE_HA_PROXY",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED",
    "RAY_SERVE_HAPROXY_NBTHREAD",
}


@pytest.fixture(params=OVERLAYS, ids=lambda folder: folder.name)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(request.param)


@pytest.fixture(params=WITH_RAY, ids=lambda folder: folder.name)
def ray_service(request: pytest.FixtureRequest) -> dict[str, Any]:
    (found,) = [item for item in render(request.param) if item["kind"] == "RayService"]
    return found


@pytest.fixture
def serve_config(ray_service: dict[str, Any]) -> dict[str, Any]:
    return yaml.safe_load(ray_service["spec"]["serveConfigV2"])


@pytest.fixture(scope="session")
def ray_service_schema() -> jsonschema.Draft202012Validator:
    """KubeRay's schema of a RayService, `ray.io/v1`, made to refuse fields that it doesn't list."""
    path = os.environ.get("RAYSERVICE_CRD")
    if not path:
        pytest.skip("RAYSERVICE_CRD doesn't name KubeRay's ray.io_rayservices.yaml")
    definition = yaml.load(Path(path).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [item for item in definition["spec"]["versions"] if item["name"] == "v1"]
    strict = refuse_unknown_fields(version["schema"]["openAPIV3Schema"])
    return jsonschema.Draft202012Validator(strict)


def refuse_unknown_fields(schema: Any) -> Any:
    """The schema with `additionalProperties: false` wherever it lists properties and is silent."""
    if isinstance(schema, list):
        return [refuse_unknown_fields(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: refuse_unknown_fields(value) for key, value in schema.items()}
    is_open = strict.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in strict
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        strict |= {} if is_open else {"additionalProperties": False}
    return strict


def pod_templates(ray_service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = ray_service["spec"]["rayClusterConfig"]
    workers = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **workers}


def pod_templates_of(item: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods of any object, by their names: none of what makes no pods."""
    if item["kind"] == "RayService":
        return pod_templates(item)
    return {"pod": item["spec"]["template"]} if item["kind"] == "Deployment" else {}


def unknown_keys(model: BaseModel, given: dict[str, Any], where: str = "") -> Iterator[str]:
    """Keys of `given` that validation passed over: Serve's schemas ignore what they don't know."""
    for key, value in given.items():
        if key not in type(model).model_fields:
            yield f"{where}{key}"
            continue
        parsed = getattr(model, key)
        pairs = zip(parsed, value, strict=True) if isinstance(parsed, list) else [(parsed, value)]
        for part, part_given in pairs:
            if isinstance(part, BaseModel) and isinstance(part_given, dict):
                yield from unknown_keys(part, part_given, f"{where}{key}.")


def test_every_file_is_part_of_an_overlay() -> None:
    """A resource, patch or component that nothing names would never be applied."""
    named: set[Path] = set()
    for path in KUBERNETES.rglob("kustomization.yaml"):
        listed = yaml.safe_load(path.read_text())
        generators = listed.get("configMapGenerator", [])
        files = [
            *listed.get("resources", []),
            *listed.get("components", []),
            *listed.get("configurations", []),
            *(name for generator in generators for name in generator.get("envs", [])),
            *(patch["path"] for patch in listed.get("patches", []) if "path" in patch),
        ]
        named |= {path} if path.parent in OVERLAYS else set()
        for name in files:
            found = (path.parent / name).resolve()
            assert found.exists(), f"{path}: {name}"
            named.add(found / "kustomization.yaml" if found.is_dir() else found)
    assert {path for path in KUBERNETES.rglob("*") if path.is_file()} == named


def test_the_ray_service_is_valid(
    ray_service: dict[str, Any], ray_service_schema: jsonschema.Draft202012Validator
) -> None:
    ray_service_schema.validate(ray_service)


@pytest.mark.parametrize(
    "path",
    [
        ("spec",),
        ("spec", "rayClusterConfig"),
        ("spec", "rayClusterConfig", "headGroupSpec"),
        ("spec", "rayClusterConfig", "workerGroupSpecs", 0),
        ("spec", "rayClusterConfig", "workerGroupSpecs", 0, "template", "spec"),
        ("spec", "rayClusterConfig", "workerGroupSpecs", 0, "template", "spec", "containers", 0),
    ],
    ids=lambda path: str(path[-1]),
)
def test_a_typo_in_the_ray_service_is_refused(
    ray_service: dict[str, Any],
    ray_service_schema: jsonschema.Draft202012Validator,
    path: tuple[str | int, ...],
) -> None:
    misspelt = copy.deepcopy(ray_service)
    place: Any = misspelt
    for step in path:
        place = place[step]
    key = min(place)
    place[f"{key}z"] = place[key]
    with pytest.raises(jsonschema.ValidationError, match=f"'{key}z' was unexpected"):
        ray_service_schema.validate(misspelt)


def test_every_other_object_is_valid(objects: list[dict[str, Any]]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for item in objects:
        if item["kind"] not in NOT_KUBERNETES_OWN:
            kubernetes_validate.validate(item, "1.32", strict=True)


@pytest.mark.ray
def test_the_serve_configuration_is_one_that_ray_knows(serve_config: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    parsed = ServeDeploySchema.model_validate(serve_config)
    assert list(unknown_keys(parsed, serve_config)) == []


@pytest.mark.ray
def test_a_typo_in_the_serve_configuration_is_found(serve_config: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    serve_config["applications"][0]["deployments"][0]["max_ongoing_request"] = 1
    parsed = ServeDeploySchema.model_validate(serve_config)
    assert list(unknown_keys(parsed, serve_config)) == [
        "applications.deployments.max_ongoing_request"
    ]


def test_the_serve_configuration_names_a_builder_that_exists(serve_config: dict[str, Any]) -> None:
    for application in serve_config["applications"]:
        module, _, function = application["import_path"].partition(":")
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        assert function in {
            node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
        }


def test_every_application_is_a_group_that_the_service_accepts(
    serve_config: dict[str, Any],
) -> None:
    for application in serve_config["applications"]:
        _, group = arguments(application["args"])
        assert group.prefix == application["route_prefix"]
        (deployment,) = application["deployments"]
        # What the group says of its size isn't said a second time, where it would win.
        if "group" in application["args"]:
            assert not deployment.keys() & {"num_replicas", "autoscaling_config"}
            assert group.resources.num_cpus == 1


def test_workers_are_as_many_as_replicas_may_be(
    ray_service: dict[str, Any], serve_config: dict[str, Any]
) -> None:
    groups = [arguments(application["args"])[1] for application in serve_config["applications"]]
    scaled = [group.autoscaling for group in groups if group.autoscaling is not None]
    cluster = ray_service["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    assert bool(scaled) == cluster.get("enableInTreeAutoscaling", False)
    if scaled:
        assert workers["minReplicas"] == sum(scaling.min for scaling in scaled)
        assert workers["maxReplicas"] == sum(scaling.max for scaling in scaled)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/chat/completions", "/generators/v1/chat/completions"),
        ("/v1/completions", "/generators/v1/completions"),
        ("/v1/embeddings", "/v1/embeddings"),
        ("/embed", "/embed"),
        ("/v1/completionsX", "/v1/completionsX"),
    ],
)
def test_one_address_leads_to_both_groups(path: str, sent: str) -> None:
    (route,) = [
        item for item in render(KUBERNETES / "overlays" / "split") if item["kind"] == "HTTPRoute"
    ]
    assert routed(route, path) == sent


def routed(route: dict[str, Any], path: str) -> str:
    """Where the longest prefix that fits sends a path (Gateway API: by whole path elements)."""
    found = ("", path)
    for rule in route["spec"]["rules"]:
        for match in rule["matches"]:
            prefix = match["path"]["value"].rstrip("/")
            if (path + "/").startswith(prefix + "/") and len(prefix) >= len(found[0]):
                sent = path
                for each in rule.get("filters", []):
                    replaced = each["urlRewrite"]["path"]["replacePrefixMatch"]
                    sent = replaced + path.removeprefix(prefix)
                found = (prefix, sent)
    return found[1]


def test_head_and_workers_read_the_same_flags(ray_service: dict[str, Any]) -> None:
    flags = {
        name: {
            variable["name"]: variable["value"]
            for container in template["spec"]["containers"]
            for variable in container["env"]
            if variable["name"].startswith("RAY_SERVE_")
        }
        for name, template in pod_templates(ray_service).items()
    }
    assert set(flags["head"]) >= HAPROXY_FLAGS
    assert all(found == flags["head"] for found in flags.values()), flags


def test_head_and_workers_have_the_same_settings(objects: list[dict[str, Any]]) -> None:
    """Serve builds the application on the head: what is no setting there is none in a replica."""
    (settings,) = [item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"]
    for item in objects:
        for name, template in pod_templates_of(item).items():
            for container in template["spec"]["containers"]:
                assert container["envFrom"] == [{"configMapRef": {"name": settings}}], name


def test_the_control_plane_asks_for_a_token(ray_service: dict[str, Any]) -> None:
    assert ray_service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_no_replica_runs_on_the_head(ray_service: dict[str, Any]) -> None:
    head = ray_service["spec"]["rayClusterConfig"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"


def drain_of(objects: list[dict[str, Any]]) -> float:
    """The one number, as the settings of an overlay have it."""
    (settings,) = [item["data"] for item in objects if item["kind"] == "ConfigMap"]
    return float(settings["ANATOMY_DRAIN_TIMEOUT_S"])


def test_every_grace_period_follows_from_one_number(objects: list[dict[str, Any]]) -> None:
    drain_s = drain_of(objects)
    found = [item for item in objects if item["kind"] in ("RayService", "Deployment")]
    assert found
    for item in found:
        templates = [item["spec"]["template"]] if item["kind"] == "Deployment" else []
        if item["kind"] == "RayService":
            templates += pod_templates(item).values()
            assert item["spec"]["rayClusterDeletionDelaySeconds"] == pod_timeout_s(drain_s)
            for application in yaml.safe_load(item["spec"]["serveConfigV2"])["applications"]:
                (deployment,) = application["deployments"]
                given_s = deployment["graceful_shutdown_timeout_s"]
                assert given_s == replica_timeout_s(drain_s, TOLD_S)
        for template in templates:
            assert template["spec"]["terminationGracePeriodSeconds"] == pod_timeout_s(drain_s)
        for container in (c for template in templates for c in template["spec"]["containers"]):
            told = {variable["name"]: variable.get("value") for variable in container["env"]}
            if item["kind"] == "RayService":
                assert told[MIN_DRAINING] == str(TOLD_S)
                assert told["RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S"] == str(TOLD_S)
            else:
                assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == TOLD_S


@pytest.mark.ray
def test_ray_doesnt_raise_what_replicas_are_given(
    serve_config: dict[str, Any], ray_service: dict[str, Any]
) -> None:
    """Serve gives an ingress at least its minimum and a margin; below that, ours would not hold."""
    from ray.serve._private.constants import RAY_SERVE_DIRECT_INGRESS_SHUTDOWN_BUFFER_S

    for application in serve_config["applications"]:
        (deployment,) = application["deployments"]
        least_s = TOLD_S + RAY_SERVE_DIRECT_INGRESS_SHUTDOWN_BUFFER_S
        assert deployment["graceful_shutdown_timeout_s"] >= least_s


def test_a_replica_reserves_the_gpu_that_its_pod_has(
    ray_service: dict[str, Any], serve_config: dict[str, Any]
) -> None:
    """Ray shows a replica only what it reserved, and a pod holds as many replicas as it offers."""
    (workers,) = ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    in_pod = int(limits.get("nvidia.com/gpu", 0))
    assert limits == container["resources"]["requests"]
    assert int(workers["rayStartParams"].get("num-gpus", 0)) == in_pod
    for application in serve_config["applications"]:
        _, group = arguments(application["args"])
        assert group.resources.num_gpus == in_pod


def test_what_is_scraped_has_a_port_of_that_name() -> None:
    objects = render(KUBERNETES / "overlays" / "monitored")
    (ray_service,) = [item for item in objects if item["kind"] == "RayService"]
    pods = list(pod_templates(ray_service).values())
    (reached,) = [
        {port["port"] for rule in item["spec"]["ingress"] for port in rule["ports"]}
        for item in objects
        if item["metadata"]["name"] == "anatomy-metrics"
    ]
    monitors = [item for item in objects if item["kind"] == "PodMonitor"]
    assert len(monitors) == 2
    for monitor in monitors:
        spec = monitor["spec"]
        assert spec.keys() - {"jobLabel"} == {"selector", "podMetricsEndpoints"}
        labels = spec["selector"]["matchLabels"].items()
        selected = [pod["spec"] for pod in pods if labels <= pod["metadata"]["labels"].items()]
        assert selected
        for endpoint in spec["podMetricsEndpoints"]:
            assert endpoint.keys() == {"port", "path", "interval"}
            for pod in selected:
                ports = {p["name"]: p["containerPort"] for p in pod["containers"][0]["ports"]}
                assert ports[endpoint["port"]] in {8000} | reached


def test_the_alerts_name_the_job_that_pods_are_scraped_as() -> None:
    """The operator's own name for a job has the namespace in it: no alert would ever fire."""
    rules = (ROOT / "deploy" / "monitoring" / "rules" / "anatomy.yaml").read_text()
    (named,) = set(re.findall(r'job="([^"]*)"', rules))
    objects = render(KUBERNETES / "overlays" / "monitored")
    (ray_service,) = [item for item in objects if item["kind"] == "RayService"]
    (monitor,) = [
        item["spec"]
        for item in objects
        if item["kind"] == "PodMonitor" and item["metadata"]["name"] == "anatomy"
    ]
    labels = pod_templates(ray_service)["replicas"]["metadata"]["labels"]
    assert labels[monitor["jobLabel"]] == named


def test_containers_can_do_nothing_that_they_need_not(objects: list[dict[str, Any]]) -> None:
    templates = [
        template
        for item in objects
        for template in (
            pod_templates(item).values()
            if item["kind"] == "RayService"
            else [item["spec"]["template"]]
            if item["kind"] == "Deployment"
            else []
        )
    ]
    assert templates
    for template in templates:
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        # Variables such as ANATOMY_PORT=tcp://…, made for a Service, would be read as settings.
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_autoscaler_can_start_and_reach_kubernetes(
    ray_service: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """KubeRay adds its container, with nothing of what the namespace and the policies want."""
    cluster = ray_service["spec"]["rayClusterConfig"]
    options = cluster.get("autoscalerOptions")
    assert (options is not None) == cluster.get("enableInTreeAutoscaling", False)
    if options is None:
        return
    pod = pod_templates(ray_service)["head"]["spec"]
    assert options["securityContext"] == pod["containers"][0]["securityContext"]
    mounts = {mount["mountPath"]: mount["name"] for mount in options["volumeMounts"]}
    assert mounts.keys() >= {"/tmp", "/home/anatomy"}
    token = mounts["/var/run/secrets/kubernetes.io/serviceaccount"]
    assert set(mounts.values()) <= {volume["name"] for volume in pod["volumes"]}
    assert token not in {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    (overlay,) = [folder for folder in WITH_RAY if f"[{folder.name}]" in request.node.name]
    (policy,) = [
        item["spec"] for item in render(overlay) if item["metadata"]["name"] == "anatomy-autoscaler"
    ]
    labels = pod_templates(ray_service)["head"]["metadata"]["labels"].items()
    assert policy["podSelector"]["matchLabels"].items() <= labels
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {443, 6443}


def test_what_is_not_allowed_is_denied(objects: list[dict[str, Any]]) -> None:
    policies = {
        item["metadata"]["name"]: item["spec"]
        for item in objects
        if item["kind"] == "NetworkPolicy"
    }
    deny = policies.pop("anatomy-default-deny")
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny
    assert "egress" not in deny
    open_to_all = [
        port["port"]
        for spec in policies.values()
        for rule in spec.get("ingress", [])
        for peer in rule["from"]
        if peer == {"namespaceSelector": {}}
        for port in rule["ports"]
    ]
    assert open_to_all == [8000]


def test_the_settings_are_ones_that_the_service_accepts(objects: list[dict[str, Any]]) -> None:
    (settings,) = [item["data"] for item in objects if item["kind"] == "ConfigMap"]
    values = {name.removeprefix("ANATOMY_").lower(): value for name, value in settings.items()}
    ServiceSettings(**values)  # refuses what it doesn't know, and what is out of range


def test_the_settings_say_where_it_listens_and_what_it_serves(
    objects: list[dict[str, Any]],
) -> None:
    """No argument comes before them: `anatomy doctor` in the pod sees what the service sees."""
    (settings,) = [item["data"] for item in objects if item["kind"] == "ConfigMap"]
    assert settings["ANATOMY_HOST"] == "0.0.0.0"
    for item in objects:
        if item["kind"] == "Deployment":
            (container,) = item["spec"]["template"]["spec"]["containers"]
            assert container["args"] == ["anatomy", "serve", "--plain"]
        elif item["kind"] == "RayService":
            for application in yaml.safe_load(item["spec"]["serveConfigV2"])["applications"]:
                args = application["args"]
                assert args == {} or args.keys() == {"group"}  # a group has to name its models
    assert settings["ANATOMY_MODELS"] == "minilm,smollm2"


@pytest.mark.parametrize("overlay", ["cpu", "plain", "gpu", "autoscaled", "split"])
def test_keys_are_asked_for_wherever_the_component_is(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "site").mkdir()
    kubernetes = "../deploy/kubernetes"
    (tmp_path / "site" / "kustomization.yaml").write_text(
        f"namespace: anatomy\nresources: [{kubernetes}/overlays/{overlay}]\n"
        f"components: [{kubernetes}/components/keys]\n"
    )
    objects = render(tmp_path / "site")
    (settings,) = [item for item in objects if item["kind"] == "ConfigMap"]
    file = Path(settings["data"]["ANATOMY_API_KEYS_FILE"])
    pods = [pod for item in objects for pod in pod_templates_of(item).items()]
    assert pods
    for name, template in pods:
        if name == "head":
            continue
        (container,) = template["spec"]["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        (secret,) = [volume for volume in template["spec"]["volumes"] if "secret" in volume]
        assert mounts[str(file.parent)] == secret["name"]
        assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]


def test_prometheus_has_a_key_where_keys_are_asked_for(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "site").mkdir()
    kubernetes = "../deploy/kubernetes"
    (tmp_path / "site" / "kustomization.yaml").write_text(
        f"namespace: anatomy\nresources: [{kubernetes}/overlays/cpu]\n"
        f"components: [{kubernetes}/components/monitoring, {kubernetes}/components/keys]\n"
    )
    endpoints = {
        endpoint["port"]: endpoint.get("authorization")
        for item in render(tmp_path / "site")
        if item["kind"] == "PodMonitor"
        for endpoint in item["spec"]["podMetricsEndpoints"]
    }
    credentials = {"name": "anatomy-prometheus", "key": "key"}
    assert endpoints == {
        "serve": {"credentials": credentials}, "haproxy": None, "metrics": None
    }  # fmt: skip


@pytest.mark.parametrize("place", range(3), ids=["registry", "in the image", "in a volume"])
def test_the_runbooks_sites_render_and_are_valid(place: int, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    sites = re.findall(
        r"my-site/kustomization.yaml <<'YAML'\n(.*?)^YAML$", page, re.DOTALL | re.MULTILINE
    )
    assert len(sites) == 3
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "my-site").mkdir()
    (tmp_path / "my-site" / "kustomization.yaml").write_text(
        sites[place].replace("REGISTRY", "registry.example.org")
    )
    objects = render(tmp_path / "my-site")
    (pod,) = [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]
    (container,) = pod["containers"]
    (settings,) = [item for item in objects if item["kind"] == "ConfigMap"]
    assert container["image"].startswith("registry.example.org/")
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    served = ["minilm,smollm2", "minilm,hf:org/name", "/models/name"][place]
    assert settings["data"]["ANATOMY_MODELS"] == served
    assert settings["data"].keys() > {"ANATOMY_MODELS", "ANATOMY_DRAIN_TIMEOUT_S"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert mounts.get("models") == ("/models" if place == 2 else None)
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for item in objects:
        kubernetes_validate.validate(item, "1.32", strict=True)


def test_everything_that_selects_plain_pods_finds_them() -> None:
    objects = render(KUBERNETES / "overlays" / "plain")
    (labels,) = [
        item["spec"]["template"]["metadata"]["labels"]
        for item in objects
        if item["kind"] == "Deployment"
    ]
    selectors = [
        selector.get("matchLabels", selector)
        for item in objects
        for name, selector in item.get("spec", {}).items()
        if name in ("selector", "podSelector")
    ]
    assert len(selectors) == 5  # Deployment, Service, disruption budget, two network policies
    assert all(selector.items() <= labels.items() for selector in selectors)
