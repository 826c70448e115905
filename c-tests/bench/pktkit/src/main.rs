//! One side of a measurement with pktkit, as `work.h` describes it.

use pktkit::impair::{ImpairL2, Impairment};
use pktkit::qemu::{Conn, Listener, dial_tcp, dial_unix};
use pktkit::{Frame, L2Device, L2Hub, serve};
use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const PAUSE: Duration = Duration::from_micros(500);
const STAMP_AT: usize = 14;

struct Work {
    network: String,
    address: String,
    to: String,
    size: usize,
    frames: u64,
    threads: u64,
    impairment: Impairment,
}

fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this function's own.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn say(name: &str, value: u64) {
    println!("{name}={value}");
}

/// A sender stays until the runner closes standard input.
fn stay() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

impl Work {
    fn parse() -> Option<(String, Work)> {
        let mut arguments = std::env::args().skip(1);
        let role = arguments.next()?;
        let mut work = Work {
            network: arguments.next()?,
            address: arguments.next()?,
            to: String::new(),
            size: arguments.next()?.parse().ok()?,
            frames: arguments.next()?.parse().ok()?,
            threads: 1,
            // The others lose nothing that they were not asked to.
            impairment: Impairment::default().queue_limit(usize::MAX),
        };
        for argument in arguments {
            match argument.split_once('=')? {
                ("threads", value) => work.threads = value.parse().ok()?,
                ("loss", value) => work.impairment.loss = value.parse::<f64>().ok()? / 100.0,
                ("delay", value) => {
                    work.impairment.delay = Duration::from_micros(value.parse().ok()?);
                }
                ("to", value) => work.to = value.to_string(),
                _ => return None,
            }
        }
        Some((role, work))
    }

    fn dial(&self, address: &str) -> Arc<Conn> {
        match self.network.as_str() {
            "unix" => dial_unix(address).expect("dial"),
            _ => dial_tcp(address).expect("dial"),
        }
    }

    fn listen(&self) -> Listener {
        let listener = match self.network.as_str() {
            "unix" => Listener::bind_unix(&self.address).expect("listen"),
            _ => Listener::bind_tcp(&self.address).expect("listen"),
        };
        println!("ready");
        listener
    }

    fn accept(&self) -> Arc<Conn> {
        self.listen().accept().expect("accept")
    }

    fn frame(&self) -> Vec<u8> {
        (0..self.size).map(|i| if i < 6 { 0xff } else { 2 + i as u8 * 4 }).collect()
    }
}

/// Sends a frame, and tries again until it is taken: pktkit does not wait for room, but fails.
fn send(conn: &Conn, frame: &Frame) {
    while let Err(error) = conn.send(frame) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "send");
        std::thread::yield_now();
    }
}

fn run_send(work: &Work) {
    let conn = work.dial(&work.address);
    let frame = work.frame();
    say("begin", now());
    std::thread::scope(|scope| {
        for thread in 0..work.threads {
            let frames = work.frames / work.threads
                + if thread == 0 { work.frames % work.threads } else { 0 };
            let (conn, frame) = (&conn, Frame::from_slice(&frame));
            scope.spawn(move || (0..frames).for_each(|_| send(conn, frame)));
        }
    });
    stay();
}

fn run_handler(work: &Work) {
    let conn = work.accept();
    let (done, is_done) = mpsc::channel();
    let (got, frames) = (AtomicU64::new(0), work.frames);
    conn.set_handler(Arc::new(move |_: &Frame| {
        if got.fetch_add(1, Ordering::Relaxed) + 1 == frames {
            let _ = done.send(now());
        }
        Ok(())
    }));
    say("end", is_done.recv().expect("frames"));
    say("frames", frames);
}

fn run_relay(work: &Work) {
    let to = work.dial(&work.to);
    let from = work.accept();
    from.set_handler(Arc::new(move |frame: &Frame| {
        send(&to, frame);
        Ok(())
    }));
    from.done_signal().expect("signal").wait_done();
}

fn run_link(work: &Work) {
    let to = work.dial(&work.to);
    let from = work.accept();
    let done = from.done_signal().expect("signal");
    let impaired = ImpairL2::new(from, work.impairment.clone());
    impaired.set_handler(Arc::new(move |frame: &Frame| {
        send(&to, frame);
        Ok(())
    }));
    done.wait_done();
}

fn run_hub(work: &Work) {
    let hub = Arc::new(L2Hub::new());
    let to = work.dial(&work.to);
    let _to = hub.connect_arc(to);
    let from = work.accept();
    let done = from.done_signal().expect("signal");
    let _from = hub.connect_arc(from);
    done.wait_done();
}

fn run_serve(work: &Work) {
    let listener = work.listen();
    std::thread::spawn(move || serve(&listener, &Arc::new(L2Hub::new())));
    stay();
}

/// The times of single frames, whose median is printed when all are there.
struct Times(Mutex<Vec<u64>>, usize, mpsc::Sender<()>);

impl Times {
    fn new(frames: u64) -> (Times, mpsc::Receiver<()>) {
        let (done, is_done) = mpsc::channel();
        (Times(Mutex::new(Vec::with_capacity(frames as usize)), frames as usize, done), is_done)
    }

    /// Adds a time. Returns whether more are wanted.
    fn add(&self, time: u64) -> bool {
        let mut times = self.0.lock().expect("times");
        times.push(time);
        if times.len() < self.1 {
            return true;
        }
        say("end", now());
        say("frames", times.len() as u64);
        times.sort_unstable();
        say("median", times[times.len() / 2]);
        let _ = self.2.send(());
        false
    }
}

/// Each answer's handler sends the next frame.
fn run_ping(work: &Work) {
    let conn = work.dial(&work.address);
    let frame = work.frame();
    let (times, is_done) = Times::new(work.frames);
    let before = AtomicU64::new(now());
    say("begin", before.load(Ordering::Relaxed));
    send(&conn, Frame::from_slice(&frame));
    let sender = conn.clone();
    conn.set_handler(Arc::new(move |_: &Frame| {
        let after = now();
        if times.add(after - before.swap(after, Ordering::Relaxed)) {
            send(&sender, Frame::from_slice(&frame));
        }
        Ok(())
    }));
    is_done.recv().expect("answers");
}

fn run_pong(work: &Work) {
    let conn = work.accept();
    let sender = conn.clone();
    conn.set_handler(Arc::new(move |frame: &Frame| {
        send(&sender, frame);
        Ok(())
    }));
    conn.done_signal().expect("signal").wait_done();
}

fn run_lone(work: &Work) {
    let conn = work.dial(&work.address);
    let mut frame = work.frame();
    say("begin", now());
    for _ in 0..work.frames {
        std::thread::sleep(PAUSE);
        frame[STAMP_AT..STAMP_AT + 8].copy_from_slice(&now().to_ne_bytes());
        send(&conn, Frame::from_slice(&frame));
    }
    stay();
}

fn run_delay(work: &Work) {
    let conn = work.accept();
    let (times, is_done) = Times::new(work.frames);
    conn.set_handler(Arc::new(move |frame: &Frame| {
        let stamp = frame.as_bytes()[STAMP_AT..STAMP_AT + 8].try_into().expect("stamp");
        times.add(now() - u64::from_ne_bytes(stamp));
        Ok(())
    }));
    is_done.recv().expect("frames");
}

fn main() {
    let Some((role, work)) = Work::parse() else {
        eprintln!("ROLE NETWORK ADDRESS SIZE FRAMES [threads=N] [loss=PERCENT] [delay=US] [to=ADDRESS]");
        std::process::exit(2);
    };
    let run = match role.as_str() {
        "send" => run_send,
        "handler" => run_handler,
        "relay" => run_relay,
        "link" => run_link,
        "hub" => run_hub,
        "serve" => run_serve,
        "ping" => run_ping,
        "pong" => run_pong,
        "lone" => run_lone,
        "delay" => run_delay,
        _ => panic!("no such role: {role}"),
    };
    run(&work);
}
