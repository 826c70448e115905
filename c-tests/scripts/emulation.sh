#!/bin/sh
# emulation.sh TARGET - gives every text of docs/emulation.md to the library, and those that other pages
# give to the examples: each has to be taken, and so has the text that is read back. Tests
# examples/carrier.py. Then runs every block of the page as it is written, in namespaces of their own (see
# blocks.sh): through each line, a host has to answer.
#
# The blocks need root or user namespaces; otherwise they are skipped, or fail if QNET_REQUIRE_HOSTS=1. Without
# Python, or for one block QEMU, tests are skipped, or fail if QNET_REQUIRE_LANGUAGES=1 or QNET_REQUIRE_QEMU=1.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
target=$1
slow=${CHECK_SLOW:-1}
. "$root/c-tests/scripts/sandbox.sh"
. "$root/c-tests/scripts/blocks.sh"
tests='impaired_lines_answer impaired_cable_answers pulled_guest_is_told'

# ---- Inside the namespaces ----

# Whether a host that is linked to the switch answers a ping, sooner or later.
answers()
{
    await ping -c 1 -W 2 unix /tmp/sw.sock 10.0.0.1
}

ended()     # process
{
    kill "$1" && wait "$1"
}

host_at()   # path
{
    responder unix "$1" 10.0.0.1 >responder.log 2>&1 &
    host=$!
    await test -S "$1"
}

# Each line is a switch with a host, which is at the end of another line, or where the switch dials.
impaired_lines_answer()
{
    lines=0
    for line in line.*; do
        host_at /tmp/router.sock && begin "$line" 1 && switch=$! && ! command_of "$line" 2 | grep . &&
            await test -S /tmp/sw.sock || return 1
        link=
        grep dial= "$line" || { link unix:/tmp/router.sock unix:/tmp/sw.sock >link.log 2>&1 & link=$!; }
        answers && { [ ! "$link" ] || ended "$link"; } && ended "$switch" && ended "$host" || return 1
        lines=$((lines + 1))
    done
    echo "$lines lines" && [ "$lines" -ge 8 ]
}

# Each cable leads from a switch to a host; and so does the cable of the program.
impaired_cable_answers()
{
    switch unix:/tmp/sw.sock >switch.log 2>&1 &
    host_at /tmp/vm.sock && await test -S /tmp/sw.sock || return 1
    for cable in cable.*; do
        begin "$cable" 1 && cable=$! && answers && ended "$cable" || return 1
    done
    impaired unix /tmp/vm.sock unix /tmp/sw.sock &
    answers
}

# The monitor of a real QEMU takes what is asked of it.
pulled_guest_is_told()
{
    switch unix:/tmp/sw.sock >switch.log 2>&1 &
    await test -S /tmp/sw.sock && mkfifo commands || return 1
    sh -ux carrier <commands >said 2>carrier.log &
    exec 4>commands
    await grep listening said && begin guest 1 && await grep linked said && echo down >&4 &&
        await grep '^down; lost: ' said && echo up >&4 && await grep '^up; lost: ' said
}

if [ "$target" = inside ]; then
    run_inside "$2"
    exit
fi

# ---- Outside ----

. "$root/c-tests/scripts/report.sh"
cd "$root" || exit 2
page=docs/emulation.md
users="$page README.md examples/options.h" # of --in and --out
tmp=$work/tmp
mkdir -p "$tmp/bin" "$tmp/examples"

# Writes a program that reads texts, one a line, and prints those that the library does not take.
write_reader()
{
    cat <<'END_C'
#include <qnet.h>
#include <stdio.h>
#include <string.h>

/* Whether a text is taken, and what is read back is the same when it is read once more. */
static int is_taken(qnet_conn *conn, int direction, const char *text)
{
    char once[1000] = "", twice[1000] = "";

    return qnet_impair(conn, QNET_BOTH, text) == QNET_OK &&
           qnet_impairment(conn, direction, once, sizeof once) > 0 &&
           qnet_impair(conn, QNET_BOTH, once) == QNET_OK &&
           qnet_impairment(conn, direction, twice, sizeof twice) > 0 &&
           strlen(once) < sizeof once - 1 && strcmp(once, twice) == 0;
}

int main(void)
{
    char text[1000], more[1010];
    qnet_conn *conn, *peer;
    int texts = 0, wrong = 0;

    if (qnet_socketpair(&conn, &peer) != QNET_OK)
        return 2;
    for (; fgets(text, sizeof text, stdin) != NULL; texts++) {
        text[strcspn(text, "\n")] = '\0';
        snprintf(more, sizeof more, "%s wrong", text);
        if (!is_taken(conn, QNET_IN, text) || !is_taken(conn, QNET_OUT, text) ||
            qnet_impair(conn, QNET_BOTH, more) != QNET_ERR_INVALID) {
            printf("not taken: %s: %s\n", text, qnet_last_error());
            wrong++;
        }
    }
    printf("%d texts\n", texts);
    return qnet_close(conn) != QNET_OK || qnet_close(peer) != QNET_OK || wrong > 0;
}
END_C
}

# Prints the texts, each on a line: what --in and --out get, what qnet_impair gets, and the examples in the
# table of words.
texts_of_page()
{
    # shellcheck disable=SC2086
    grep -ohE -e "--(in|out) '[^']*'" $users | sed "s/^[^']*'//; s/'\$//" &&
        sed -nE 's/.*qnet_impair\(.*"([^"]*)"\).*/\1/p' "$page" &&
        sed -nE 's/^\| `[a-z ]*` \| `([^`]*)` \|.*/\1/p' "$page"
}

# Also counts by a second way how many there are, so that none is missed.
texts_are_taken()
{
    write_reader >"$work/reader.c" && compile "$work/reader.c" "$work/reader" &&
        texts_of_page >"$work/texts" && seq 1 3 >"$work/lte.trace" || return 1
    words=$(sed -n '/^## The words/,/^## Recipes/p' "$page" | grep -c '^| `')
    # Files are split into words on purpose.
    # shellcheck disable=SC2086
    options=$(cat $users | grep -oE -e "--(in|out) '" | wc -l)
    calls=$(grep -c 'qnet_impair(.*"' "$page")
    (cd "$work" && LD_LIBRARY_PATH=$target/release ./reader <texts) | tee "$work/read" &&
        [ "$(tail -n 1 "$work/read")" = "$((words + options + calls)) texts" ] &&
        ! grep 'not taken' "$work/read"
}

# Every word that the library names when one is unknown is in the table.
table_has_every_word()
{
    printf 'unknown\n' | LD_LIBRARY_PATH=$target/release "$work/reader" | tee "$work/read"
    words=$(sed -n 's/.*expected one of \(.*\)/\1/p' "$work/read" | tr -d ,)
    [ "$words" ] || return 1
    for word in $words; do
        grep "^| \`$word\` |" "$page" || { echo "not in the table: $word" && return 1; }
    done
}

# The error on the page is the one of that text.
error_is_quoted()
{
    compile examples/switch.c "$work/switch" || return 1
    ! LD_LIBRARY_PATH=$target/release "$work/switch" --in 'delay 10' unix:"$work/sw.sock" 2>"$work/error" &&
        grep -F "$(sed "s|^switch: ||; s|$work|/tmp|" "$work/error")" "$page"
}

same_again()
{
    compile "$tmp/again.c" "$work/again" || return 1
    for _ in 1 2; do
        said=$(LD_LIBRARY_PATH=$target/release "$work/again") && echo "$said" &&
            grep -F "prints \`$said\`" "$page" || return 1
    done
}

carrier_pulls()
{
    mkdir "$work/carrier" && LD_LIBRARY_PATH=$target/release timeout -s KILL $((60 * slow)) \
        python3 c-tests/scripts/carrier.py examples/carrier.py "$work/carrier"
}

# Takes all blocks: the lines, which are switches, and the cables, which are links, get a number each.
takes_all()
{
    comes_first_in_path && take 'usleep' "$tmp/again.c" && take 'argv[4]' "$tmp/impaired.c" && take 'carrier.py' "$tmp/carrier" &&
        take 'qmp' "$tmp/guest" || return 1
    number=0
    for block in "$work"/blocks/*; do
        number=$((number + 1))
        case $(cat "$block") in
        switch*) mv "$block" "$tmp/line.$number" ;;
        link*) mv "$block" "$tmp/cable.$number" ;;
        esac
    done
    all_are_taken && furnish switch link responder ping && compile "$tmp/impaired.c" "$tmp/bin/impaired" &&
        cp examples/carrier.py "$tmp/examples/"
}

[ "${DRY_RUN:-}" ] || split_blocks "$page"
try 'every text of the page is taken' texts_are_taken
try 'the table has every word' table_has_every_word
try 'the page quotes an error' error_is_quoted
try_blocks page
try 'the same frames are lost again' same_again
if command -v python3 >/dev/null; then
    try 'carrier.py pulls a cable and tells QEMU' carrier_pulls
else
    lack "${QNET_REQUIRE_LANGUAGES:-0}" 'carrier.py pulls a cable and tells QEMU: no python3'
fi
need_namespaces "${QNET_REQUIRE_HOSTS:-0}"
for test in $tests; do
    wanted "$test" || continue
    if [ "$test" = pulled_guest_is_told ]; then
        command -v qemu-system-x86_64 >/dev/null && command -v python3 >/dev/null || {
            lack "${QNET_REQUIRE_QEMU:-0}" "$test: no QEMU, or no python3"
            continue
        }
    fi
    try_inside "$test"
done
finish
