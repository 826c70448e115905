# blocks.sh - for scripts that run the code blocks of a page as they are written, some of them in
# namespaces of their own, where the directory $work/tmp is /tmp. In a QEMU's command there, `...` stands for
# the options of a machine whose firmware asks the network what to boot. Needs sandbox.sh, and outside of
# the namespaces report.sh.
# shellcheck shell=sh disable=SC2154

# Prints one command of a block. A line that ends with a backslash continues on the next one.
command_of()    # block number
{
    awk -v wanted="$2" 'NF { text = text $0 "\n" }
        NF && !/\\$/ { if (++number == wanted) printf "%s", text; text = "" }' "$1"
}

# ---- Inside the namespaces, in the directory that is /tmp there ----

# Runs one command of a block in the background. The process that is started becomes the command.
begin()         # block number
{
    { printf 'exec ' && command_of "$1" "$2"; } >"$1.$2"
    sh -ux "$1.$2" >"$1.$2.log" 2>&1 &
}

enter()
{
    mount --bind "$PWD/tmp" /tmp && cd /tmp && ip link set lo up || return 1
    PATH=/tmp/bin:$PATH LD_LIBRARY_PATH=/tmp/bin
    export PATH LD_LIBRARY_PATH
}

# Runs a test in such a directory. If it fails, prints what its processes have said last.
run_inside()    # test
{
    enter || return 1
    "$1" && return
    tail -n 20 ./*.log said 2>/dev/null
    return 1
}

# ---- Outside ----

# Writes each block to a file below $work/blocks.
split_blocks()  # page
{
    mkdir -p "$work/blocks" && awk -v blocks="$work/blocks" '
        inside && /^```$/ { inside = 0; close(file) }
        inside { print >file }
        /^```[a-z]+$/ { inside = 1; file = blocks "/" NR; printf "" >file }' "$1"
}

# Takes the only block that contains a text. Each block can be taken once.
take()          # text file
{
    mv "$(grep -lF -e "$1" "$work"/blocks/*)" "$2"
}

all_are_taken()
{
    ! grep . "$work"/blocks/*
}

# After the page's command, what is built here is found before what the system has.
comes_first_in_path()
(
    take 'PATH=$PWD' "$work/path" && cd "$root" && . "$work/path" &&
        [ "${PATH%%:*}" = "$root/target/examples-c" ]
)

compile()       # source program
{
    "${CC:-cc}" -std=c99 -Wall -Wextra -Wpedantic -Werror -Iinclude -o "$2" "$1" \
        -L"$target/release" -lqnet -pthread
}

# Puts the library, some of the examples and QEMU where they are found inside the namespaces.
furnish()       # program...
{
    bin=$work/tmp/bin
    mkdir -p "$bin" && cp "$target/release/libqnet.so" "$bin/libqnet.so.0" || return 1
    for program; do
        compile "examples/$program.c" "$bin/$program" || return 1
    done
    cat >"$bin/qemu-system-x86_64" <<'END'
#!/bin/sh
for argument; do
    shift
    case $argument in
    ...) set -- "$@" -M q35 -accel tcg -m 64 -nodefaults -display none ;;
    *) set -- "$@" "$argument" ;;
    esac
done
PATH=${PATH#*:}
exec qemu-system-x86_64 "$@"
END
    chmod +x "$bin/qemu-system-x86_64"
}

# Makes a program available inside the namespaces, as it may be below the real /tmp, which is hidden there.
bring()         # program
{
    ! found=$(command -v "$1") || cp "$found" "$work/tmp/bin/"
}

# Reports whether all blocks were taken, by the script's takes_all. If not, ends the script.
try_blocks()    # of what
{
    if [ "${DRY_RUN:-}" ] || takes_all >"$work/log" 2>&1; then
        report ok "every block of the $1 is run"
    else
        report FAILED "every block of the $1 is run"
        cat "$work/log"
        finish
        exit
    fi
}

# Ends the script where there is no right to make namespaces.
need_namespaces()   # whether that is a failure
{
    sandbox ip link set lo up 2>"$work/log" ||
        cannot "$1" "no right to make namespaces: $(tail -n 1 "$work/log")"
}

# Tries a test of this script in namespaces of its own; each finds $work/tmp as it is now.
try_inside()    # test
{
    [ ! "${DRY_RUN:-}" ] || return 0
    rm -rf "$work/kept" && cp -a "$work/tmp" "$work/kept" || exit 2
    try "$1" sandbox "$root/c-tests/scripts/${0##*/}" inside "$1"
    rm -rf "$work/tmp" && mv "$work/kept" "$work/tmp"
}
