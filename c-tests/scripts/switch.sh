#!/bin/sh
# switch.sh TARGET - tests the examples switch and lab, and runs every block of docs/switch.md as it is written, in
# namespaces of their own (see blocks.sh), where a program that copies stands for Wireshark.
#
# The blocks need root or user namespaces; otherwise they are skipped, or fail if QNET_REQUIRE_HOSTS=1. Without valgrind
# one test is skipped, and without tshark what it would read is not read; or that fails if QNET_REQUIRE_TSHARK=1.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
target=$1
slow=${CHECK_SLOW:-1}
. "$root/c-tests/scripts/sandbox.sh"
. "$root/c-tests/scripts/blocks.sh"
tests='vlans_are_apart ports_are_drawn loop_carries_nothing table_is_printed capture_is_written wireshark_reads_live mirror_watches
       lab_is_followed peers_are_told'

# ---- In a directory with the programs in PATH: these leave processes behind, which end with it ----

ended()     # process
{
    kill "$1" && wait "$1"
}

# A host, with a cable to a port.
host_at()   # address socket
{
    responder unix "/tmp/host-$1" "$1" >"responder-$1.log" 2>&1 &
    await test -S "/tmp/host-$1" && await test -S "$2" || return 1
    link "unix:/tmp/host-$1" "unix:$2" >"link-$1.log" 2>&1 &
    await grep '^linked' "link-$1.log"
}

# Whether a host answers who asks at a socket, sooner or later.
answers()   # address socket
{
    await ping -c 1 -W 2 unix "$2" "$1"
}

# Whether a host does not answer who asks at a socket; that it answers others is known.
is_deaf()   # address socket
{
    ! ping -c 1 -W 1 unix "$2" "$1"
}

# Starts the switch of a block.
begins()    # block
{
    begin "$1" 1 && await grep '^listening' "$1.1.log"
}

vlans_are_apart()
{
    begins near && begins far && host_at 10.0.0.1 /tmp/vm1.sock && host_at 10.0.0.2 /tmp/vm2.sock || return 1
    for socket in vm1 vm3; do
        answers 10.0.0.1 /tmp/$socket.sock && is_deaf 10.0.0.2 /tmp/$socket.sock || return 1
    done
    for socket in vm2 vm4; do
        answers 10.0.0.2 /tmp/$socket.sock && is_deaf 10.0.0.1 /tmp/$socket.sock || return 1
    done
}

# On a terminal: what comes to a port, which goes when its peer has left.
ports_are_drawn()
{
    script -qfc 'sh -ux near' drawn >log 2>&1 </dev/null &
    await test -S vm1.sock && host_at 10.0.0.1 /tmp/vm1.sock || return 1
    await draws_asked && kill "$(pgrep -x link)" && await grep '0 ports, ' drawn
}

# Whether a row has counted frames and bytes, both ways.
draws_asked()
{
    ping -c 1 unix /tmp/vm1.sock 10.0.0.1
    number='([1-9][0-9]*[kM]?|[1-9]\.[0-9][kM]) +'
    grep -E "^unix:/tmp/vm1\\. pid [1-9][0-9]* +access 10 +$number$number$number${number}0 +0" drawn
}

# A cable with both ends in the switch: what is flooded would go round there without end.
loop_carries_nothing()
{
    begins loop && switch=$! && host_at 10.0.0.1 /tmp/sw.sock || return 1
    link unix:/tmp/sw.sock unix:/tmp/sw.sock >link.log 2>&1 &
    await grep '^linked' link.log && answers 10.0.0.1 /tmp/sw.sock && ended "$switch" && cat loop.1.log || return 1
    awk '/ refused$/ { flooded = $8; refused = $(NF - 1) } END { exit !(flooded < 100 && refused > 0) }' loop.1.log
}

# The host's address is behind the first peer, and the page's example has the same first line.
table_is_printed()
{
    begins table && switch=$! && host_at 10.0.0.1 /tmp/sw.sock && answers 10.0.0.1 /tmp/sw.sock &&
        kill -USR1 "$switch" && await grep ' addresses$' table.1.log || return 1
    cat table.1.log
    grep -E '^..:..:..:..:..:..    0 +[0-9]+     0        vm$' table.1.log &&
        grep -Fx "$(grep -o 'ADDRESS  .*' page)" table.1.log
}

is_pcapng() # file
{
    [ "$(od -A n -t x1 -N 12 "$1" | tr -d ' \n' | cut -c 1-8,17-24)" = 0a0d0d0a4d3c2b1a ]
}

capture_is_written()
{
    begins capture && switch=$! && host_at 10.0.0.1 /tmp/sw.sock && answers 10.0.0.1 /tmp/sw.sock &&
        ended "$switch" && is_pcapng lab.pcapng || return 1
    ! command -v tshark || tshark -r lab.pcapng icmp | tee shown | grep 'Echo (ping) reply' && cat shown
}

# Whether a Wireshark that is started anew gets a whole file. One that is started before the last one's end has been
# noticed may get the rest of what was for that.
shows_anew()
{
    ! reader=$(pgrep -x cat) || kill "$reader"
    rm -f seen.pcapng
    wireshark -k -i /tmp/sw.fifo &
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        is_seen && break
        sleep 0.1
    done
    is_pcapng seen.pcapng
}

# Whether what is asked now, or was, is seen.
is_seen()
{
    ping -c 1 unix /tmp/sw.sock 10.0.0.1
    [ -s seen.pcapng ]
}

wireshark_reads_live()
{
    printf '#!/bin/sh\nexec cat "$3" >/tmp/seen.pcapng\n' >bin/wireshark && chmod +x bin/wireshark &&
        command_of live 1 >wireshark && command_of live 2 | grep capture && sh -eux wireshark && await test -p sw.fifo &&
        begin live 2 && await grep '^listening' live.2.log && host_at 10.0.0.1 /tmp/sw.sock &&
        await is_seen && is_pcapng seen.pcapng && await shows_anew
}

# A switch that dials the mirror learns both ends of a ping, and cannot be heard itself.
mirror_watches()
{
    begins mirror && host_at 10.0.0.1 /tmp/sw.sock || return 1
    switch dial=unix:/tmp/ids.sock unix:/tmp/watch.sock >watch.log 2>&1 &
    watch=$!
    await grep '^listening' watch.log && host_at 10.0.0.2 /tmp/watch.sock && answers 10.0.0.1 /tmp/sw.sock &&
        is_deaf 10.0.0.2 /tmp/sw.sock && ended "$watch" && cat watch.log && grep '^2 ports, [2-9] devices' watch.log
}

# The page's laboratory, and its mistake.
lab_is_followed()
{
    begin lab 1 && await grep '^/tmp/lab.txt is in force' lab.1.log && cat lab.1.log || return 1
    grep -F "$(grep -o '`vm1: .*sock`' page | tr -d '`')" lab.1.log && host_at 10.0.0.1 /tmp/vm1.sock &&
        answers 10.0.0.1 /tmp/vm1.sock && is_deaf 10.0.0.1 /tmp/vm2.sock && is_pcapng lab_00001.pcapng || return 1
    sed -i 's/vlan "access 20"/vlan "access 10"/' lab.txt && sh -eux reread && answers 10.0.0.1 /tmp/vm2.sock &&
        sed -i '3s/access/acess/' lab.txt && sh -eux reread && await grep acess lab.1.log &&
        grep -F "$(grep -o '/tmp/lab.txt:3: .*' page)" lab.1.log && answers 10.0.0.1 /tmp/vm2.sock
}

peers_are_told()
{
    stdbuf -oL guarded /tmp/sw.sock >guarded.log 2>&1 &
    await test -S sw.sock && ! ping -c 1 -W 0.1 unix /tmp/sw.sock 10.0.0.1
    await grep '^one has left' guarded.log && cat guarded.log && grep '^process [1-9][0-9]* has joined' guarded.log
}

if [ "$target" = inside ]; then
    run_inside "$2"
    exit
fi

# ---- Outside ----

. "$root/c-tests/scripts/report.sh"
cd "$root" || exit 2
page=docs/switch.md
tmp=$work/tmp
mkdir -p "$tmp/bin"

# ---- The programs by themselves, in a directory of their own ----

# Whether a program that is given what is wrong prints exactly that, fails with 2, and leaves no socket file.
complains() # what program argument...
{
    said=$1
    shift
    status=0
    "$@" >out 2>err || status=$?
    cat err
    [ "$status" = 2 ] && [ "$(cat err)" = "$said" ] && ! ls ./*.sock
}

switch_refuses()
{
    complains 'switch: "vlan": = and a value have to follow (see --help)' switch unix:x.sock vlan &&
        complains 'switch: "isolated=1": stands alone (see --help)' switch unix:x.sock isolated=1 &&
        complains 'switch: "many": a number was expected' switch unix:x.sock storm=many &&
        complains 'switch: "many": a number was expected' switch --move many unix:x.sock &&
        complains 'switch: --move: an argument has to follow (see --help)' switch --move &&
        complains 'switch: vlam=10: an address is NETWORK:WHERE, as in unix:PATH (see --help)' \
            switch unix:x.sock vlam=10 &&
        complains "switch: set the VLANs of unix x.sock: \"trunkk\" at 1: expected one of access, trunk, tunnel" \
            switch unix:x.sock vlan=trunkk &&
        complains 'switch: no ADDRESS (see --help)' switch --fdb
}

# Whether a laboratory of these lines is refused with this error.
lab_refuses_lines() # error line...
{
    error=$1
    shift
    printf '%s\n' "$@" >lab.txt && complains "lab.txt:$error" lab lab.txt
}

lab_refuses()
{
    s='switch s1'
    lab_refuses_lines '1: "swich": expected one of switch, port, cable, capture' 'swich s1' &&
        lab_refuses_lines '2: "s": expected one of switch, port, cable, capture' "$s" 's s2' &&
        lab_refuses_lines '4: "port": port SWITCH NAME ADDRESS' '# none' '' "$s" 'port s1 vm1' &&
        lab_refuses_lines '1: "s1": no such switch in the lines before' 'port s1 vm1 unix:x.sock' "$s" &&
        lab_refuses_lines '2: "s1": there is one already' "$s" 'switch s1 move 200' &&
        lab_refuses_lines '3: "vm1": there is one already' "$s" 'port s1 vm1 unix:x.sock' 'port s1 vm1 unix:y.sock' &&
        lab_refuses_lines '2: "vm 1": an id is a letter, then letters, digits, '"'-', '.' and '_'" \
            "$s" 'port s1 "vm 1" unix:x.sock' &&
        lab_refuses_lines '2: x.sock: an address is NETWORK:WHERE, as in unix:PATH (see --help)' \
            "$s" 'port s1 vm1 x.sock' &&
        lab_refuses_lines '2: "vlam": no such word here (see --help)' "$s" 'port s1 vm1 unix:x.sock vlam trunk' &&
        lab_refuses_lines '2: "vlan": a value has to follow' "$s" 'port s1 vm1 unix:x.sock isolated vlan # none' &&
        lab_refuses_lines '2: "trunkk" at 1: expected one of access, trunk, tunnel' \
            "$s" 'port s1 vm1 unix:x.sock vlan "trunkk 10"' &&
        lab_refuses_lines '2: "10" at 7: a time needs its unit: ns, us, ms or s' \
            "$s" 'port s1 vm1 unix:x.sock in "delay 10"' &&
        lab_refuses_lines '2: "flood 8": it is from 0 to 7' "$s" 'port s1 vm1 unix:x.sock flood 8' &&
        lab_refuses_lines '1: "age": a number has to follow' 'switch s1 move 200 age' &&
        lab_refuses_lines '2: "bytes 5": it is from 65536 to 2147483647' "$s" 'capture s1 lab.pcapng snap 9 bytes 5' &&
        lab_refuses_lines '1: "fast": a number was expected' 'switch s1 move fast' &&
        lab_refuses_lines '1: "lose" at 12: expected one of '"$all_words" 'cable unix:x.sock unix:y.sock delay 10ms lose 1%' &&
        lab_refuses_lines '2: "access 10": the closing quote is missing' "$s" 'port s1 vm1 unix:x.sock vlan "access 10'
}

# Nothing is left of a laboratory that could not be opened as a whole.
lab_closes()
{
    printf '%s\n' 'switch s1' 'port s1 vm1 unix:x.sock' 'capture s1 none/x.pcapng' >lab.txt
    status=0
    lab lab.txt >out 2>err || status=$?
    cat err
    [ "$status" = 1 ] && ! ls ./*.sock && ! grep force out &&
        [ "$(cat err)" = 'lab.txt:3: capture to none/x.pcapng: No such file or directory (os error 2)' ]
}

# How many times the laboratory has read its file.
rereads()   # laboratory times
{
    kill -HUP "$1" && await sh -c "[ \$(grep -c force out) = $2 ]"
}

# Begins a laboratory, by way of a command, and a host that is to be linked to a socket of its.
begin_lab()     # socket [command]
{
    ${2:-} lab lab.txt >out 2>err & lab=$!
    started="$started $lab"
    await grep force out || return 1
    responder unix host.sock 10.0.0.1 >responder.log &
    started="$started $!"
    await test -S host.sock && await test -S "$1"
}

# One port's guest goes on asking while others come, change and go: it misses nothing, and is not cut off.
lab_follows()
{
    printf '%s\n' 'switch s1' 'port s1 vm1 unix:vm1.sock' 'port s1 vm2 unix:vm2.sock' 'capture s1 x.pcapng' >lab.txt
    begin_lab vm1.sock "${1:-}" || return 1
    link unix:host.sock unix:vm1.sock >link.log 2>&1 & link=$!
    started="$started $link"
    await grep '^linked' link.log && inode=$(stat -c %i vm1.sock) || return 1
    ping -c 200 -i 0.02 -W 5 unix vm1.sock 10.0.0.1 >asked 2>&1 & asker=$!
    await grep icmp_seq=1 asked && await ping -c 1 unix vm2.sock 10.0.0.1 &&
        sed -i 's/vm2.sock/& vlan "access 20"/' lab.txt && rereads "$lab" 2 && ! ping -c 1 -W 1 unix vm2.sock 10.0.0.1 &&
        sed -i 's/vm2.sock .*/vm2.sock out "loss every 1"/' lab.txt && rereads "$lab" 3 &&
        ! ping -c 1 -W 1 unix vm2.sock 10.0.0.1 && sed -i '/vm2/d' lab.txt && rereads "$lab" 4 && [ ! -e vm2.sock ] &&
        echo 'port s1 vm3 unix:vm3.sock mode 0660' >>lab.txt && rereads "$lab" 5 && [ "$(stat -c %a vm3.sock)" = 660 ] &&
        await ping -c 1 unix vm3.sock 10.0.0.1 && wait "$asker" && cat asked && grep '^200 packets transmitted, 200 received' asked &&
        [ "$(stat -c %i vm1.sock)" = "$inode" ] && [ "$(grep -c '^linked' link.log)" = 1 ] || return 1
    kill "$lab" && wait "$lab" && is_pcapng x.pcapng && cat err && ! grep -v '^[=-][=-]' err && ! ls vm*.sock
}

# The peer of a port whose line has changed stays, and is told otherwise; that of one whose line has gone is cut off.
lab_keeps_peers()
{
    printf '%s\n' 'switch s1' 'port s1 vm1 unix:vm1.sock' 'port s1 vm2 unix:vm2.sock vlan "access 20"' >lab.txt
    begin_lab vm1.sock || return 1
    link --once unix:host.sock unix:vm1.sock >link.log 2>&1 & link=$!
    started="$started $link"
    await grep '^linked' link.log && ! ping -c 1 -W 1 unix vm2.sock 10.0.0.1 &&
        sed -i 's/vm1.sock/& vlan "access 20"/' lab.txt && rereads "$lab" 2 && await ping -c 1 unix vm2.sock 10.0.0.1 &&
        kill -0 "$link" && sed -i '/vm1/d' lab.txt && rereads "$lab" 3 && await grep ' from it' link.log &&
        kill "$lab" && wait "$lab"
}

# An end of a cable leaves, and another takes its place; what is set for it changes meanwhile.
lab_cables()
{
    echo 'cable unix:a.sock unix:b.sock' >lab.txt
    begin_lab a.sock || return 1
    link --once unix:host.sock unix:a.sock >link.log 2>&1 & link=$!
    started="$started $link"
    await ping -c 1 unix b.sock 10.0.0.1 && await ping -c 1 unix b.sock 10.0.0.1 &&
        sed -i 's/$/ loss every 1/' lab.txt && rereads "$lab" 2 && ! ping -c 1 -W 1 unix b.sock 10.0.0.1 &&
        sed -i 's/ loss.*//' lab.txt && rereads "$lab" 3 && await ping -c 1 unix b.sock 10.0.0.1 &&
        kill "$link" && wait "$link" && link --once unix:host.sock unix:a.sock >link.log 2>&1 & link=$!
    started="$started $link"
    await ping -c 1 unix b.sock 10.0.0.1 && kill "$lab" && wait "$lab" && ! ls ./[ab].sock
}

# Runs one of these in a new directory.
alone()     # test argument...
(
    mkdir -p "$work/alone" && cd "$work/alone" && rm -rf ./* || exit 1
    trap 'kill $started 2>/dev/null; wait' EXIT
    started=
    PATH=$tmp/bin:$PATH LD_LIBRARY_PATH=$tmp/bin
    export PATH LD_LIBRARY_PATH
    "$@"
)

takes_all()
{
    split_blocks "$page" && cp "$page" "$tmp/page" && comes_first_in_path && take 'vm1.sock vlan=' "$tmp/near" &&
        take 'vm3.sock' "$tmp/far" && take '--move' "$tmp/loop" && take '--fdb' "$tmp/table" &&
        take '--capture /tmp/lab.pcapng' "$tmp/capture" && take 'sw.fifo' "$tmp/live" && take 'ids.sock' "$tmp/mirror" &&
        take 'port s1' "$tmp/lab.txt" && take 'lab /tmp/lab.txt' "$tmp/lab" && take 'pkill' "$tmp/reread" &&
        take 'on_port' "$tmp/guarded.c" && all_are_taken && compile "$tmp/guarded.c" "$tmp/bin/guarded"
}

if [ ! "${DRY_RUN:-}" ]; then
    furnish switch lab link responder ping >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
    all_words=$(sed -n '/^## The words/,/^## Recipes/s/^| `\([a-z]*\)` .*/\1/p' docs/emulation.md | paste -sd, | sed 's/,/, /g')
fi
try 'switch says what is wrong' alone switch_refuses
try 'lab says what is wrong, and where' alone lab_refuses
try 'lab leaves nothing behind' alone lab_closes
try 'lab follows its file, and the rest goes on' alone lab_follows
try 'lab keeps whom it tells otherwise' alone lab_keeps_peers
try 'lab makes cables' alone lab_cables
if command -v valgrind >/dev/null; then
    slow=$((slow * 5))
    try 'lab follows its file under valgrind' alone lab_follows \
        'valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite'
    slow=${CHECK_SLOW:-1}
else
    report skipped 'lab follows its file under valgrind: no valgrind'
fi
try_blocks page
need_namespaces "${QNET_REQUIRE_HOSTS:-0}"
for test in $tests; do
    wanted "$test" || continue
    try_inside "$test"
done
finish
