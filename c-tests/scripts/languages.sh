#!/bin/sh
# languages.sh TARGET - runs the programs of examples/languages. Each asks examples/responder by ARP and
# receives the answer, by pull and, if the language can, by handler; and each exits in the middle of
# traffic without closing anything, several times, while frames come at full speed and while few come.
# Every run has to exit with 0, in time, and to print nothing but what it should.
#
# A language that is not installed is skipped, or fails if QNET_REQUIRE_LANGUAGES=1. koffi is looked for
# in NODE_PATH; JNA_JAR is the path of jna.jar.
set -u

cd "$(dirname "$0")" || exit 2
. ./report.sh
cd ../.. || exit 2
target=$1
CC=${CC:-cc}
JNA_JAR=${JNA_JAR:-/usr/share/java/jna.jar}
export LD_LIBRARY_PATH="$target/release${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
programs=examples/languages
limit=$((20 * ${CHECK_SLOW:-1}))
exits=5

# Starts a program, and waits until it prints that it listens.
start()     # log program argument...
{
    log=$1
    shift
    : >"$log"
    "$@" >"$log" </dev/null &
    started="$started $!"
    until grep -q '^listening' "$log"; do
        kill -0 "$!" 2>/dev/null || return 1
        sleep 0.1
    done
}

build()     # program source
{
    "$CC" -std=c99 -Iinclude -o "$work/$1" "$2" -L"$target/release" -lqnet -pthread
}

# Writes a program that sends a frame every so many microseconds to all who connect, and ignores theirs.
write_flood()
{
    cat <<'END_C'
#define _GNU_SOURCE
#include <pthread.h>
#include <qnet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static unsigned pause_us;

static void ignore(void *user, const uint8_t *frame, size_t len)
{
    (void)user, (void)frame, (void)len;
}

static void *flood(void *conn)
{
    static const uint8_t frame[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, [12] = 0x88, 0xb5};

    if (qnet_set_handler(conn, ignore, NULL) == QNET_OK)
        while (qnet_send(conn, frame, sizeof frame) == QNET_OK)
            if (pause_us > 0)
                usleep(pause_us);
    (void)qnet_close(conn);
    return NULL;
}

int main(int argc, char **argv)
{
    qnet_listener *listener;
    qnet_conn *conn;
    pthread_t thread;

    pause_us = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    if (qnet_listen("unix", argv[1], &listener) != QNET_OK || puts("listening") < 0 ||
        fflush(stdout) != 0)
        return 1;
    while (qnet_accept(listener, -1, &conn) == QNET_OK)
        if (pthread_create(&thread, NULL, flood, conn) != 0 || pthread_detach(thread) != 0)
            return 1;
    return 1;
}
END_C
}

# Whether a program receives the answer in these ways, and prints that and nothing else.
receives()  # "how ..." command...
{
    expected=$1
    shift
    timeout -s KILL "$limit" "$@" unix "$work/answers.sock" >"$work/said" 2>&1
    status=$?
    cat "$work/said"
    [ "$status" -eq 0 ] || { echo "exit status $status" && return 1; }
    [ "$(sed 's/: 10\.0\.2\.1 is at [0-9a-f:]\{17\}$//' "$work/said" | tr '\n' ' ')" = "$expected " ]
}

leaves()    # socket command...
{
    socket=$1
    shift
    for _ in $(seq $exits); do
        timeout -s KILL "$limit" "$@" unix "$work/$socket.sock" --leave >"$work/said" 2>&1
        status=$?
        [ "$status" -eq 0 ] && [ "$(cat "$work/said")" = leaving ] && continue
        cat "$work/said"
        echo "exit status $status"
        return 1
    done
}

# Runs all tests of a program. Without a command it cannot be run, for want of what `reason` names.
tests()     # name "how it receives" [command...]
{
    language=$1 ways=$2
    shift 2
    if [ $# -gt 0 ]; then
        try "${language}_receives" receives "$ways" "$@"
        try "${language}_leaves_flood" leaves flood "$@"
        try "${language}_leaves_trickle" leaves trickle "$@"
        return
    fi
    for one in receives leaves_flood leaves_trickle; do
        lack "${QNET_REQUIRE_LANGUAGES:-0}" "${language}_$one: no $reason"
    done
}

have()      # program
{
    reason=$1
    command -v "$1" >/dev/null
}

have_koffi()
{
    have node && reason='koffi in NODE_PATH' && node -e 'require("koffi")' 2>/dev/null
}

have_jna()
{
    have java && have javac && reason=$JNA_JAR && [ -e "$JNA_JAR" ]
}

have_go()
{
    have go && have pkg-config
}

have_fiddle()
{
    have ruby && reason="Ruby's Fiddle" && ruby -rfiddle -e '' 2>/dev/null
}

have_platypus()
{
    have perl && reason='FFI::Platypus' && perl -MFFI::Platypus=2.00 -e '' 2>/dev/null
}

have_ctypes_foreign()
{
    have ocamlfind && reason="OCaml's ctypes" && ocamlfind query ctypes.foreign >/dev/null 2>&1
}

compile_java()
{
    javac -Xlint:all -Werror -cp "$JNA_JAR" -d "$work/classes" "$programs/Jna.java"
}

# The library is not installed, so pkg-config gets a file with the paths of the build.
compile_go()
{
    sed -e "s|@prefix@|$PWD|" -e "s|@libdir@|$target/release|" -e "s|@includedir@|$PWD/include|" \
        -e 's|@version@|0|' -e 's|@description@|here|' -e 's|@private@||' install/qnet.pc.in \
        >"$work/qnet.pc" &&
        PKG_CONFIG_PATH=$work GOPATH=$work/go GOCACHE=$target/go-cache GOFLAGS='' CGO_ENABLED=1 \
            go build -o "$work/cgo" "$programs/cgo.go"
}

compile_ocaml()
{
    mkdir "$work/ocaml" && cp "$programs/ocaml.ml" "$work/ocaml" && (cd "$work/ocaml" &&
        ocamlfind ocamlopt -thread -w +a-4-70 -warn-error +a -package ctypes.foreign -linkpkg ocaml.ml \
            -o ../ocaml.exe)
}

if [ ! "${DRY_RUN:-}" ] && ! { build responder examples/responder.c && write_flood >"$work/flood.c" &&
    build flood "$work/flood.c" && start "$work/answers.log" "$work/responder" unix "$work/answers.sock" &&
    start "$work/flood.log" "$work/flood" "$work/flood.sock" &&
    start "$work/trickle.log" "$work/flood" "$work/trickle.sock" 2000; }; then
    report FAILED 'peers: nothing to talk to'
    finish
fi

if python_with ctypes; then set -- "$python" "$programs/python_ctypes.py"; else set --; fi
tests ctypes 'pulled handled' "$@"
if python_with cffi; then set -- "$python" "$programs/python_cffi.py"; else set --; fi
tests cffi 'pulled handled' "$@"
if have luajit; then set -- luajit "$programs/luajit.lua"; else set --; fi
tests luajit 'pulled' "$@"
if have_koffi; then set -- node "$programs/node.js"; else set --; fi
tests node 'pulled handled' "$@"
if have_jna; then
    try java_compiles compile_java
    set -- java -cp "$JNA_JAR:$work/classes" Jna
else
    set --
fi
tests java 'pulled handled' "$@"
if have_go; then
    try go_compiles compile_go
    set -- "$work/cgo"
else
    set --
fi
tests go 'pulled handled' "$@"
if have_fiddle; then set -- ruby "$programs/ruby.rb"; else set --; fi
tests ruby 'pulled' "$@"
if have_platypus; then set -- perl "$programs/perl.pl"; else set --; fi
tests perl 'pulled' "$@"
if have_ctypes_foreign; then
    try ocaml_compiles compile_ocaml
    set -- "$work/ocaml.exe"
else
    set --
fi
tests ocaml 'pulled' "$@"

finish
