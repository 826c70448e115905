//! Classic BPF programs, as `tcpdump -ddd` prints them: read, checked when they are set as Linux checks
//! them, and run over a frame.

use std::fmt;

use crate::emulation::quantity;
use crate::emulation::words::{Word, Words};
use crate::error::Result;

/// The most instructions that a program has.
const LONGEST: u64 = 4096;

/// How many words of scratch memory there are.
const SCRATCH: usize = 16;

// Classes of instructions, in the lowest three bits of their codes.
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;

// Where a load loads from. Halfwords have 0x08 added to that, bytes 0x10.
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xa0;
const HALF: u16 = 0x08;
const BYTE: u16 = 0x10;

// What is computed.
const ADD: u16 = 0x00;
const SUB: u16 = 0x10;
const MUL: u16 = 0x20;
const DIV: u16 = 0x30;
const OR: u16 = 0x40;
const AND: u16 = 0x50;
const LSH: u16 = 0x60;
const RSH: u16 = 0x70;
const NEG: u16 = 0x80;
const MOD: u16 = 0x90;
const XOR: u16 = 0xa0;

// When a jump is taken.
const JA: u16 = 0x00;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;

/// The second operand is the index register, or what a return returns is the accumulator.
const X: u16 = 0x08;
const A: u16 = 0x10;
const TXA: u16 = 0x80;

/// The codes of all instructions but those that compute and jump.
const LOADS: [u16; 17] = [
    LD | ABS,
    LD | ABS | HALF,
    LD | ABS | BYTE,
    LD | IND,
    LD | IND | HALF,
    LD | IND | BYTE,
    LD | IMM,
    LD | MEM,
    LD | LEN,
    LDX | IMM,
    LDX | MEM,
    LDX | LEN,
    LDX | MSH | BYTE,
    ST,
    STX,
    MISC,
    MISC | TXA,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

/// A program that has been checked: it ends whatever the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Reads the numbers behind the word that announces a program.
    pub fn read(word: &Word<'_>, words: &mut Words<'_>) -> Result<Program> {
        let mut last = *word;
        let mut number = |most: u64| {
            let next = words.item().ok_or_else(|| last.error("the program is cut short here"))?;
            last = next;
            let number = quantity::whole(&next)?;
            let is_in_range = number <= most;
            is_in_range.then_some(number).ok_or_else(|| next.error("this number is too large"))
        };
        let count = number(LONGEST)?;
        let mut program = Vec::with_capacity(count as usize);
        for _ in 0..count {
            program.push(Instruction {
                code: number(u16::MAX.into())? as u16,
                jump_true: number(u8::MAX.into())? as u8,
                jump_false: number(u8::MAX.into())? as u8,
                k: number(u32::MAX.into())? as u32,
            });
        }
        words.end_items();
        check(&program).map_err(|why| word.error(&why))?;
        Ok(Program(program))
    }

    /// What the program returns for a frame.
    pub fn run(&self, frame: &[u8]) -> u32 {
        // The check has found a return at the end of every way through the program.
        Machine::default().run(&self.0, frame).unwrap_or(0)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.len())?;
        self.0.iter().try_for_each(|instruction| {
            let Instruction { code, jump_true, jump_false, k } = instruction;
            write!(f, ",{code} {jump_true} {jump_false} {k}")
        })
    }
}

/// Checks a program as Linux does: it only jumps forward and stays inside itself, ends with a return, and
/// uses scratch memory only where it has been written.
fn check(program: &[Instruction]) -> Result<(), String> {
    let ends = program.last().is_some_and(|last| last.code & !A == RET);
    if !ends {
        return Err("a program's last instruction is a return".into());
    }
    for (at, instruction) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        instruction.check(left).map_err(|why| format!("instruction {at}: {why}"))?;
    }
    check_scratch(program)
}

/// Follows which words of scratch memory have been written on every way to an instruction.
fn check_scratch(program: &[Instruction]) -> Result<(), String> {
    let mut written = vec![u16::MAX; program.len()];
    let mut here = 0;
    for (at, instruction) in program.iter().enumerate() {
        here &= written[at];
        let Instruction { code, jump_true, jump_false, k } = *instruction;
        let mut reach = |distance: usize| written[at + 1 + distance] &= here;
        let loads = code == LD | MEM || code == LDX | MEM;
        if loads && here & (1 << k) == 0 {
            return Err(format!("instruction {at}: it loads what was not stored"));
        }
        match code & 7 {
            ST | STX => here |= 1 << k,
            JMP if code == JMP | JA => reach(k as usize),
            JMP => {
                reach(jump_true.into());
                reach(jump_false.into());
            }
            _ => {}
        }
        if matches!(code & 7, JMP | RET) {
            // What follows is reached by jumps alone.
            here = u16::MAX;
        }
    }
    Ok(())
}

impl Instruction {
    /// Checks an instruction by itself, behind which there are so many more.
    fn check(&self, left: usize) -> Result<(), &'static str> {
        let Instruction { code, k, .. } = *self;
        match code & 7 {
            ALU => return self.check_operation(),
            JMP => return self.check_jump(left),
            RET if code == RET || code == RET | A => return Ok(()),
            _ if !LOADS.contains(&code) => return Err("no such instruction"),
            _ => {}
        }
        let is_load = matches!(code & 7, LD | LDX);
        match code & 0xe0 {
            ABS | IND | MSH if is_load && k > i32::MAX as u32 => Err("a negative offset"),
            MEM if is_load && k as usize >= SCRATCH => Err("no such word of scratch memory"),
            _ if matches!(code & 7, ST | STX) && k as usize >= SCRATCH => {
                Err("no such word of scratch memory")
            }
            _ => Ok(()),
        }
    }

    fn check_operation(&self) -> Result<(), &'static str> {
        let uses_x = self.code & X != 0;
        match self.code & !(7 | X) {
            DIV | MOD if !uses_x && self.k == 0 => Err("a division by 0"),
            LSH | RSH if !uses_x && self.k >= u32::BITS => Err("a shift by 32 or more"),
            NEG if uses_x => Err("no such instruction"),
            ADD | SUB | MUL | DIV | OR | AND | LSH | RSH | NEG | MOD | XOR => Ok(()),
            _ => Err("no such instruction"),
        }
    }

    fn check_jump(&self, left: usize) -> Result<(), &'static str> {
        let farthest = match self.code & !(7 | X) {
            JA if self.code & X == 0 => self.k as usize,
            JEQ | JGT | JGE | JSET => self.jump_true.max(self.jump_false).into(),
            _ => return Err("no such instruction"),
        };
        if farthest < left { Ok(()) } else { Err("a jump out of the program") }
    }
}

#[derive(Default)]
struct Machine {
    a: u32,
    x: u32,
    scratch: [u32; SCRATCH],
}

impl Machine {
    /// Runs a program. None is what a load behind the frame's end and a division by 0 come to.
    fn run(&mut self, program: &[Instruction], frame: &[u8]) -> Option<u32> {
        let mut at = 0;
        loop {
            let instruction = program.get(at)?;
            at += 1;
            let Instruction { code, jump_true, jump_false, k } = *instruction;
            let operand = if code & X == 0 { k } else { self.x };
            match code & 7 {
                LD => self.a = self.load(instruction, frame)?,
                LDX => self.x = self.load(instruction, frame)?,
                ST => self.scratch[k as usize] = self.a,
                STX => self.scratch[k as usize] = self.x,
                ALU => self.a = compute(code & 0xf0, self.a, operand)?,
                JMP if code & 0xf0 == JA => at += k as usize,
                JMP => {
                    let is_taken = compare(code & 0xf0, self.a, operand);
                    at += usize::from(if is_taken { jump_true } else { jump_false });
                }
                RET => return Some(if code & A == 0 { k } else { self.a }),
                _ if code & TXA != 0 => self.a = self.x,
                _ => self.x = self.a,
            }
        }
    }

    fn load(&self, instruction: &Instruction, frame: &[u8]) -> Option<u32> {
        let Instruction { code, k, .. } = *instruction;
        let offset = k as usize;
        match code & 0xe0 {
            IMM => Some(k),
            ABS => load_at(code, frame, offset),
            IND => load_at(code, frame, offset + self.x as usize),
            MEM => Some(self.scratch[offset]),
            LEN => Some(frame.len() as u32),
            // The length of an IPv4 header, in bytes.
            _ => frame.get(offset).map(|byte| u32::from(byte & 15) * 4),
        }
    }
}

/// Loads a byte, halfword or word.
fn load_at(code: u16, frame: &[u8], offset: usize) -> Option<u32> {
    let bytes = frame.get(offset..)?;
    match code & (HALF | BYTE) {
        BYTE => bytes.first().copied().map(u32::from),
        HALF => bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes).into()),
        _ => bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
    }
}

fn compute(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        ADD => a.wrapping_add(operand),
        SUB => a.wrapping_sub(operand),
        MUL => a.wrapping_mul(operand),
        DIV => a.checked_div(operand)?,
        MOD => a.checked_rem(operand)?,
        OR => a | operand,
        AND => a & operand,
        XOR => a ^ operand,
        LSH => a.checked_shl(operand).unwrap_or(0),
        RSH => a.checked_shr(operand).unwrap_or(0),
        _ => a.wrapping_neg(),
    })
}

fn compare(condition: u16, a: u32, operand: u32) -> bool {
    match condition {
        JEQ => a == operand,
        JGT => a > operand,
        JGE => a >= operand,
        _ => a & operand != 0,
    }
}
