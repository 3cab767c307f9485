#!/bin/sh
# The steps of building an image, each by its name: the Dockerfiles call them, and so does a test,
# because a step that only an image engine can run is a step that nobody tries.
#
#   steps.sh server PREFIX [EXTRAS]      the server's environment, PREFIX/venv, without torch
#   steps.sh exporter FOLDER             the exporter's environment, with torch
#   steps.sh artifacts FOLDER EXTRAS MODEL …   export models into ANATOMY_CACHE_FOLDER, for a GPU
#                                        where EXTRAS has cuda
#   steps.sh bill PREFIX                 PREFIX/sbom.json (CycloneDX) and PREFIX/licences.md
#
# Run in the root of the source. PYTHON names the interpreter, TORCH_ARGS goes to pip for torch.
set -eu

PYTHON=${PYTHON:-python3}

install() {
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$2"
}

server() {
    prefix=$1
    extras=${2:+[$2]}
    "$PYTHON" -m venv "$prefix/venv"
    install "$prefix/venv" ".$extras"
    if [ -z "$extras" ]; then
        # The wheel carries every provider; without CUDA's libraries two of them can't be loaded.
        find "$prefix/venv" -name 'libonnxruntime_providers_cuda.so' -delete
        find "$prefix/venv" -name 'libonnxruntime_providers_tensorrt.so' -delete
    fi
}

exporter() {
    "$PYTHON" -m venv "$1"
    # shellcheck disable=SC2086 # several arguments
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check ${TORCH_ARGS:-} \
        "$(grep '^torch==' constraints.txt)"
    install "$1" ".[export]"
}

artifacts() {
    folder=$1
    case $2 in
        *cuda*) device=--cuda ;; # no GPU is needed to export for one
        *) device= ;;
    esac
    shift 2
    for model in "$@"; do
        "$folder/bin/anatomy" export ${device:+"$device"} "$model"
    done
    rm -rf "$ANATOMY_CACHE_FOLDER/sources"
}

# Made by an environment of its own, which is thrown away: what counts components isn't one.
bill() {
    prefix=$1
    tools=$(mktemp -d)
    "$PYTHON" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
        cyclonedx-bom==7.5.0 pip-licenses==5.5.5
    "$tools/bin/cyclonedx-py" environment "$prefix/venv/bin/python" \
        --output-reproducible --of JSON -o "$prefix/sbom.json"
    "$tools/bin/pip-licenses" --python "$prefix/venv/bin/python" --from=mixed --order=license \
        --format=markdown >"$prefix/licences.md"
    rm -rf "$tools"
}

step=$1
shift
"$step" "$@"
