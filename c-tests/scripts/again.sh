#!/bin/sh
# again.sh OPTIONS WORD program... - runs tests once more with options set on every connection.
#
# OPTIONS is "option=value ...", where an option is the number of a QNET_OPT_*. Only tests whose name
# contains WORD run.
LINK_OPTIONS=$1 CHECK_ONLY=$2
export LINK_OPTIONS CHECK_ONLY
shift 2
exec "$(dirname "$0")/run.sh" "$@"
