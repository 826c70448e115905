#!/bin/sh
# again.sh OPTIONS WORD program... - runs tests once more with every connection set up otherwise.
#
# OPTIONS is "option=value ..." in numbers, for QNET_OPT_*; only tests whose name contains WORD run.
LINK_OPTIONS=$1 CHECK_ONLY=$2
export LINK_OPTIONS CHECK_ONLY
shift 2
exec "$(dirname "$0")/run.sh" "$@"
