//! Programs for `match`: what `tcpdump -y EN10MB -ddd` prints, and what the checker refuses.

use std::fmt::Write;
use std::hint::black_box;

use crate::emulation::random::{Purpose, Side, Streams};
use crate::emulation::spec::Spec;
use crate::emulation::tests::packets::{ethernet, ipv4, ipv6, ports};
use crate::emulation::tests::{Lab, spec};

/// Expressions of tcpdump and their programs.
const PROGRAMS: [(&str, &str); 9] = [
    ("arp", "4,40 0 0 12,21 0 1 2054,6 0 0 262144,6 0 0 0,"),
    (
        "udp port 53",
        "20,40 0 0 12,21 0 6 34525,48 0 0 20,21 0 15 17,40 0 0 54,21 12 0 53,40 0 0 56,21 10 11 53,\
         21 0 10 2048,48 0 0 23,21 0 8 17,40 0 0 20,69 6 0 8191,177 0 0 14,72 0 0 14,21 2 0 53,72 0 0 16,\
         21 0 1 53,6 0 0 262144,6 0 0 0",
    ),
    (
        "vlan 10 and tcp",
        "19 40 0 0 12 21 2 0 33024 21 1 0 34984 21 0 14 37120 40 0 0 14 84 0 0 4095 21 0 11 10 40 0 0 16 \
         21 0 2 2048 48 0 0 27 21 6 7 6 21 0 6 34525 48 0 0 24 21 3 0 6 21 0 3 44 48 0 0 58 21 0 1 6 \
         6 0 0 262144 6 0 0 0",
    ),
    (
        "ip6 and tcp dst port 80",
        "8,40 0 0 12,21 0 5 34525,48 0 0 20,21 0 3 6,40 0 0 56,21 0 1 80,6 0 0 262144,6 0 0 0",
    ),
    (
        "ether host 52:54:00:00:00:01",
        "10,32 0 0 8,21 0 2 1,40 0 0 6,21 4 0 21076,32 0 0 2,21 0 3 1,40 0 0 0,21 0 1 21076,6 0 0 262144,\
         6 0 0 0",
    ),
    (
        "ip[8] > 5 and len >= 100",
        "8,40 0 0 12,21 0 5 2048,48 0 0 22,37 0 3 5,128 0 0 0,53 0 1 100,6 0 0 262144,6 0 0 0",
    ),
    (
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "11,40 0 0 12,21 0 8 2048,48 0 0 23,21 0 6 6,40 0 0 20,69 4 0 8191,177 0 0 14,80 0 0 27,69 0 1 3,\
         6 0 0 262144,6 0 0 0",
    ),
    (
        "icmp[icmptype] = icmp-echo or greater 1000",
        "13,40 0 0 12,21 0 7 2048,48 0 0 23,21 0 5 1,40 0 0 20,69 3 0 8191,177 0 0 14,80 0 0 14,21 2 0 8,\
         128 0 0 0,53 0 1 1000,6 0 0 262144,6 0 0 0",
    ),
    (
        "ip[2:2] % 7 = 3 and ip[8] / 2 << 1 = 64",
        "11,40 0 0 12,21 0 8 2048,40 0 0 16,148 0 0 7,21 0 5 3,48 0 0 22,52 0 0 2,100 0 0 1,21 0 1 64,\
         6 0 0 262144,6 0 0 0",
    ),
];

/// Frames, and the numbers of the expressions that each matches.
fn frames() -> Vec<(Vec<u8>, Vec<usize>)> {
    let (udp, tcp, icmp) = (17, 6, 1);
    let (dns, other) = (ports(4000, 53, 0), ports(53_000, 4000, 0));
    let long = [ports(1, 2, 0), vec![0; 1000]].concat();
    vec![
        (ethernet(&[], 0x0806, &[0; 28]), vec![0, 4]),
        (ethernet(&[], 0x0800, &ipv4(0, 64, udp, 1, &dns)), vec![1, 4]),
        (ethernet(&[], 0x0800, &ipv4(0, 64, udp, 1, &other)), vec![4]),
        (ethernet(&[], 0x86dd, &ipv6(0, udp, &ports(53, 9, 0))), vec![1, 4]),
        (ethernet(&[], 0x86dd, &ipv6(0, tcp, &ports(9, 80, 0))), vec![3, 4]),
        (ethernet(&[(0x8100, 10)], 0x0800, &ipv4(0, 64, tcp, 1, &other)), vec![2, 4]),
        (ethernet(&[(0x88a8, 0xe00a)], 0x86dd, &ipv6(0, tcp, &other)), vec![2, 4]),
        (ethernet(&[(0x8100, 11)], 0x0800, &ipv4(0, 64, tcp, 1, &other)), vec![4]),
        (ethernet(&[], 0x0800, &ipv4(0, 4, tcp, 1, &ports(1, 2, 2))), vec![4, 6]),
        (ethernet(&[], 0x0800, &ipv4(0, 4, icmp, 1, &[8, 0, 0, 0])), vec![4, 7]),
        (ethernet(&[], 0x0800, &ipv4(0, 64, icmp, 1, &long)), vec![4, 5, 7]),
        (ethernet(&[], 0x0800, &ipv4(0, 65, 99, 1, &[0; 60])), vec![4, 8]),
        ([&[9; 12][..], &0x0800_u16.to_be_bytes()].concat(), vec![]),
    ]
}

#[test]
fn programs_of_tcpdump() {
    for (number, (expression, program)) in PROGRAMS.into_iter().enumerate() {
        let program = spec(&format!("match {program}")).program.unwrap();
        for (frame, matches) in frames() {
            let is_met = program.run(&frame) != 0;
            assert_eq!(is_met, matches.contains(&number), "{expression}: {frame:02x?}");
        }
    }
}

fn run(program: &str, frame: &[u8]) -> u32 {
    spec(&format!("match {program}")).program.unwrap().run(frame)
}

#[test]
fn every_instruction() {
    let frame: Vec<u8> = (0..32).collect();
    for (program, result) in [
        ("2,32 0 0 2,22 0 0 0", 0x0203_0405),
        ("2,40 0 0 30,22 0 0 0", 0x1e1f),
        ("2,48 0 0 31,22 0 0 0", 31),
        ("2,32 0 0 29,6 0 0 9", 0),
        ("2,40 0 0 31,6 0 0 9", 0),
        ("2,48 0 0 32,6 0 0 9", 0),
        ("2,177 0 0 32,6 0 0 9", 0),
        ("2,48 0 0 2147483647,6 0 0 9", 0),
        ("3,1 0 0 4294967295,48 0 0 1,6 0 0 9", 31 - 22),
        ("3,1 0 0 4294967295,80 0 0 1,6 0 0 9", 0),
        ("3,1 0 0 3,64 0 0 1,22 0 0 0", 0x0405_0607),
        ("2,128 0 0 0,22 0 0 0", 32),
        ("3,129 0 0 0,135 0 0 0,22 0 0 0", 32),
        ("3,177 0 0 17,135 0 0 0,22 0 0 0", 4),
        ("5,0 0 0 7,2 0 0 15,0 0 0 1,96 0 0 15,22 0 0 0", 7),
        ("5,1 0 0 8,3 0 0 0,97 0 0 0,135 0 0 0,22 0 0 0", 8),
        ("4,0 0 0 5,7 0 0 0,12 0 0 0,22 0 0 0", 10),
        ("3,0 0 0 5,20 0 0 6,22 0 0 0", u32::MAX),
        ("3,0 0 0 65537,36 0 0 65537,22 0 0 0", 0x2_0001),
        ("3,0 0 0 7,52 0 0 2,22 0 0 0", 3),
        ("3,0 0 0 7,148 0 0 4,22 0 0 0", 3),
        ("3,0 0 0 7,60 0 0 0,6 0 0 9", 0),
        ("3,0 0 0 7,156 0 0 0,6 0 0 9", 0),
        ("3,0 0 0 6,68 0 0 9,22 0 0 0", 15),
        ("3,0 0 0 6,84 0 0 3,22 0 0 0", 2),
        ("3,0 0 0 6,164 0 0 3,22 0 0 0", 5),
        ("3,0 0 0 6,100 0 0 31,22 0 0 0", 0),
        ("3,0 0 0 6,116 0 0 1,22 0 0 0", 3),
        ("4,1 0 0 40,0 0 0 6,108 0 0 0,22 0 0 0", 0),
        ("3,0 0 0 6,132 0 0 0,22 0 0 0", 6_u32.wrapping_neg()),
        ("3,5 0 0 1,6 0 0 1,6 0 0 2", 2),
        ("4,0 0 0 5,53 0 1 5,6 0 0 1,6 0 0 2", 1),
        ("4,0 0 0 5,37 0 1 5,6 0 0 1,6 0 0 2", 2),
        ("4,0 0 0 5,69 0 1 2,6 0 0 1,6 0 0 2", 2),
        ("5,0 0 0 5,1 0 0 5,29 0 1 0,6 0 0 1,6 0 0 2", 1),
    ] {
        assert_eq!(run(program, &frame), result, "{program}");
    }
}

#[test]
fn programs_that_are_refused() {
    for (program, why) in [
        ("", "the program is cut short here"),
        ("2,6 0 0 1", "the program is cut short here"),
        ("1,6 0 0 x", "a whole number without a unit is expected here"),
        ("1,6 0 0 -1", "a whole number without a unit is expected here"),
        ("4097", "this number is too large"),
        ("1,65536 0 0 0", "this number is too large"),
        ("1,6 256 0 0", "this number is too large"),
        ("1,6 0 0 4294967296", "this number is too large"),
        ("0", "a program's last instruction is a return"),
        ("1,0 0 0 1", "a program's last instruction is a return"),
        ("1,14 0 0 1", "a program's last instruction is a return"),
        ("2,5 0 0 1,6 0 0 0", "instruction 0: a jump out of the program"),
        ("2,5 0 0 4294967295,6 0 0 0", "instruction 0: a jump out of the program"),
        ("2,21 1 0 0,6 0 0 0", "instruction 0: a jump out of the program"),
        ("2,21 0 1 0,6 0 0 0", "instruction 0: a jump out of the program"),
        ("2,13 0 0 0,6 0 0 0", "instruction 0: no such instruction"),
        ("2,85 0 0 0,6 0 0 0", "instruction 0: no such instruction"),
        ("2,52 0 0 0,6 0 0 0", "instruction 0: a division by 0"),
        ("2,148 0 0 0,6 0 0 0", "instruction 0: a division by 0"),
        ("2,100 0 0 32,6 0 0 0", "instruction 0: a shift by 32 or more"),
        ("2,140 0 0 0,6 0 0 0", "instruction 0: no such instruction"),
        ("2,180 0 0 0,6 0 0 0", "instruction 0: no such instruction"),
        ("2,40 0 0 4294963200,6 0 0 0", "instruction 0: a negative offset"),
        ("2,72 0 0 2147483648,6 0 0 0", "instruction 0: a negative offset"),
        ("2,177 0 0 4294967295,6 0 0 0", "instruction 0: a negative offset"),
        ("2,2 0 0 16,6 0 0 0", "instruction 0: no such word of scratch memory"),
        ("2,97 0 0 16,6 0 0 0", "instruction 0: no such word of scratch memory"),
        ("2,96 0 0 0,6 0 0 0", "instruction 0: it loads what was not stored"),
        ("4,21 1 0 0,2 0 0 0,96 0 0 0,6 0 0 0", "instruction 2: it loads what was not stored"),
        ("2,56 0 0 0,6 0 0 0", "instruction 0: no such instruction"),
        ("2,65280 0 0 0,6 0 0 0", "instruction 0: no such instruction"),
    ] {
        let error = Spec::parse(format!("match {program}").as_bytes()).expect_err(program);
        assert!(error.to_string().ends_with(why), "{program}: {error}");
    }
}

/// Whatever the checker takes runs to its end, on every frame.
#[test]
fn random_programs() {
    let mut streams = Streams::new(1, Side::In);
    let mut draw = |below: u64| streams.of(Purpose::Loss).draw() % below;
    let frame: Vec<u8> = (0..64_u8).map(|at| at.wrapping_mul(37)).collect();
    let mut taken = 0;
    for _ in 0..200_000 {
        let len = 1 + draw(6);
        let mut text = (len + 1).to_string();
        for _ in 0..len {
            let k = [0, 1, 5, 15, 16, 31, 32, 60, 1 << 31, u64::from(u32::MAX)][draw(10) as usize];
            write!(text, ",{} {} {} {k}", draw(256), draw(4), draw(4)).unwrap();
        }
        text.push_str(",22 0 0 0");
        if let Ok(spec) = Spec::parse(format!("match {text}").as_bytes()) {
            let program = spec.program.unwrap();
            (0..frame.len()).for_each(|len| _ = black_box(program.run(&frame[..len])));
            taken += 1;
        }
    }
    assert!(taken > 1000, "{taken}");
}

#[test]
fn the_longest_program() {
    let program = format!("4096{},6 0 0 5", ",0 0 0 4294967295".repeat(4095));
    assert_eq!(run(&program, &[]), 5);
    let spec = spec(&format!("match {program}"));
    assert_eq!(String::from_utf8(spec.print()).unwrap(), format!("match {program}"));
}

#[test]
fn what_does_not_match_leaves_at_once() {
    let mut lab =
        Lab::new("delay 1ms loss 0% seed 1 match 4,40 0 0 12,21 0 1 2054,6 0 0 1,6 0 0 0");
    let (arp, other) = (ethernet(&[], 0x0806, &[1]), ethernet(&[], 0x0800, &[2]));
    lab.enter(0, &arp);
    lab.enter(1, &other);
    assert_eq!(lab.left, [(1, other)]);
    lab.run(1_000_000);
    assert_eq!(lab.left[1], (1_000_000, arp));
    let counts = lab.counts();
    assert_eq!((counts.bypassed, counts.passed, counts.reordered), (1, 2, 0));
}
