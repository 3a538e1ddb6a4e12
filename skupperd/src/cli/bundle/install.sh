#!/bin/sh
# Sets up the Skupper site of this bundle on this host, as root for the host's sites and as anybody
# else for sites of one's own. What has to be there is the command skupper, and skupperd.
set -eu
umask 077

here=$(dirname "$0")
site=$(cat "$here/site")
namespace=$(cat "$here/namespace")
remove=
links=

usage() {
    cat <<END
Usage: install.sh [-n NAMESPACE] [-d DIRECTORY | -x]
  -n NAMESPACE  namespace of the site (default: $namespace)
  -p PLATFORM   linux, which is the only one
  -d DIRECTORY  write a link for another site into DIRECTORY
  -x            remove the namespace: the site, all other resources, its state and its keys
  -h            say this
END
}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

while getopts n:p:d:xh option; do
    case $option in
    n) namespace=$OPTARG ;;
    p) [ "$OPTARG" = linux ] || fail "platform \"$OPTARG\" not supported" ;;
    d) links=$OPTARG ;;
    x) remove=yes ;;
    h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || { usage >&2 && exit 2; }

command -v skupper >/dev/null || fail "there is no command skupper: install the packages skupper and skupperd first"

if [ -n "$remove" ]; then
    exec skupper -n "$namespace" system teardown --yes
fi
if [ -n "$links" ]; then
    mkdir -p "$links"
    skupper -n "$namespace" link generate >"$links/link-$site.yaml"
    echo "Static links have been defined at: $links"
    exit 0
fi

# Sites below a directory of their own have no unit: whoever has them runs skupperd.
[ -n "${SKUPPER_ROOT:-}" ] || skupper system install
skupper -n "$namespace" system apply -f "$here/resources.yaml"
skupper -n "$namespace" site update "$site" --wait ready --timeout 60s >/dev/null
echo "Site \"$site\" has been created on namespace \"$namespace\""
