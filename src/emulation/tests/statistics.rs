//! A million frames, compared with the theory.

use crate::emulation::distribution::Distribution;
use crate::emulation::quantity::Percent;
use crate::emulation::random::{Purpose, Side, Streams};
use crate::emulation::tests::{FOR_EVER, Lab, frame};
use crate::emulation::words::Words;

const FRAMES: usize = 1_000_000;

/// Which of a million frames are lost.
fn losses(text: &str) -> Vec<bool> {
    let mut lab = Lab::new(text);
    let frame = frame(0, 60);
    let lost = |_| {
        let before = lab.left.len();
        lab.enter(0, &frame);
        let is_lost = lab.left.len() == before;
        lab.left.clear();
        is_lost
    };
    (0..FRAMES).map(lost).collect()
}

fn percent_of(lost: &[bool]) -> f64 {
    100.0 * lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64
}

/// How many frames in a row are lost, on average.
fn mean_run(lost: &[bool]) -> f64 {
    let runs = lost.split(|lost| !lost).filter(|run| !run.is_empty()).count();
    lost.iter().filter(|lost| **lost).count() as f64 / runs as f64
}

fn assert_near(value: f64, expected: f64, most: f64) {
    assert!((value - expected).abs() <= most, "{value} instead of {expected}");
}

#[test]
fn how_many_frames_are_lost() {
    assert_near(percent_of(&losses("loss 1% seed 1")), 1.0, 0.0398);
    assert_eq!(percent_of(&losses("loss 0% seed 1")), 0.0);
    assert_eq!(percent_of(&losses("loss 100% seed 1")), 100.0);
    assert_near(percent_of(&losses("loss gemodel 1% 10% 70% 0.1% seed 1")), 6.455, 0.33);
    assert_near(percent_of(&losses("loss state 2% 20% 10% 30% 1% seed 1")), 9.62, 0.25);
}

#[test]
fn how_long_losses_are() {
    let lost = losses("loss 10% 50% seed 1");
    assert_near(percent_of(&lost), 10.0, 0.21);
    assert_near(mean_run(&lost), 2.222, 0.02 * 2.222);
    let lost = losses("loss gemodel 1% 25% seed 1");
    assert_near(percent_of(&lost), 3.846, 0.21);
    assert_near(mean_run(&lost), 4.0, 0.04 * 4.0);
}

fn percent(text: &str) -> Percent {
    Percent::read(&Words::of(text.as_bytes()).next().unwrap()).unwrap()
}

/// A million values of a distribution.
fn values(distribution: Distribution, correlation: &str) -> Vec<f64> {
    let mut streams = Streams::new(7, Side::Out);
    let again = percent(correlation).threshold();
    let value = |_| {
        let random = streams.of(Purpose::Jitter).value(again);
        distribution.quantile(random) as f64 / f64::from(1 << 20)
    };
    (0..FRAMES).map(value).collect()
}

/// The largest distance between how values are spread and how they should be.
fn distance(mut values: Vec<f64>, expected: impl Fn(f64) -> f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let distances = values.iter().enumerate().map(|(at, value)| {
        let expected = expected(*value);
        (expected - at as f64 / n).abs().max((expected - (at as f64 + 1.0) / n).abs())
    });
    distances.fold(0.0, f64::max)
}

/// The normal distribution function, by its series, to 12 digits.
fn normal(x: f64) -> f64 {
    if x.abs() >= 4.0 {
        return if x < 0.0 { 0.0 } else { 1.0 };
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-14 {
        n += 2.0;
        term *= x * x / n;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

fn pareto(x: f64) -> f64 {
    1.0 - (x * 0.75 + 1.5).powi(-3)
}

#[test]
fn how_jitter_is_spread() {
    let most = |n: usize| 1.95 / (n as f64).sqrt();
    let uniform = values(Distribution::Uniform, "0%");
    assert!(distance(uniform, |x| (x + 1.0) / 2.0) < most(FRAMES));
    assert!(distance(values(Distribution::Normal, "0%"), normal) < most(FRAMES));
    // Many values of the next are at its end, where it is cut.
    let mut values = values(Distribution::Pareto, "0%");
    values.retain(|value| *value < 4.0);
    let below = values.len();
    assert_near(below as f64 / FRAMES as f64, pareto(4.0), 0.001);
    assert!(distance(values, |x| pareto(x) / pareto(4.0)) < most(below));
}

/// The last of the distributions is a quarter of one and three of another, at each probability.
#[test]
fn how_a_mixture_is_spread() {
    let mixed = values(Distribution::ParetoNormal, "0%");
    let parts = values(Distribution::Normal, "0%").into_iter();
    let parts = parts.zip(values(Distribution::Pareto, "0%"));
    let most = mixed.iter().zip(parts).map(|(mixed, (a, b))| (mixed - (a / 4.0 + b * 0.75)).abs());
    assert!(most.fold(0.0, f64::max) < 1e-5);
}

#[test]
fn how_jitter_is_correlated() {
    let values = values(Distribution::Normal, "25%");
    let mean = values.iter().sum::<f64>() / FRAMES as f64;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let pairs = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean));
    assert_near(pairs.sum::<f64>() / square, 0.25, 0.01);
    let eighths: Vec<f64> = values.into_iter().step_by(8).collect();
    let n = eighths.len() as f64;
    assert!(distance(eighths, normal) < 1.95 / n.sqrt());
}

#[test]
fn which_bits_are_corrupted() {
    let mut lab = Lab::new("corrupt 100% seed 1");
    let whole = frame(0, 60);
    let mut hits = vec![0_u32; 8 * 60];
    for time in 0..FRAMES as u64 {
        lab.enter(time, &whole);
        lab.run(time);
        let (_, frame) = lab.left.pop().unwrap();
        let flips = frame.iter().zip(&whole).map(|(a, b)| a ^ b).enumerate();
        let flips: Vec<_> = flips.filter(|(_, flips)| *flips != 0).collect();
        assert!(matches!(flips[..], [(12.., flip)] if flip.is_power_of_two()));
        hits[8 * flips[0].0 + flips[0].1.trailing_zeros() as usize] += 1;
    }
    let mean = FRAMES as f64 / (8.0 * 48.0);
    assert!(hits[..96].iter().all(|hits| *hits == 0));
    let chi_square: f64 =
        hits[96..].iter().map(|hits| (f64::from(*hits) - mean).powi(2) / mean).sum();
    // 383 degrees of freedom: four standard deviations.
    assert_near(chi_square, 383.0, 4.0 * (2.0 * 383.0_f64).sqrt());
    assert_eq!(lab.counts().corrupted, FRAMES as u64);
}

/// The last of many frames leaves at the nanosecond that the rate says, without any drift.
#[test]
fn rates_are_exact() {
    for (text, rate) in [
        ("rate 56kbit", 56_000),
        ("rate 1mbit", 1_000_000),
        ("rate 33333333bit", 33_333_333),
        ("rate 1gbit", 1_000_000_000),
        ("rate 100gbit", 100_000_000_000_u128),
        ("rate 1tbit", 1_000_000_000_000),
    ] {
        for len in [60, 1514] {
            let mut lab = Lab::new(&format!("{text} 24 limit 100000"));
            let frame = frame(0, len);
            let frames = 100_000;
            (0..frames).for_each(|_| lab.enter_early(7, &frame));
            lab.run(FOR_EVER);
            let bits = 8 * (len as u128 + 24) * frames;
            let end = 7 + (bits * 1_000_000_000).div_ceil(rate) as u64;
            assert_eq!(lab.left.last().unwrap().0, end, "{text}, {len} bytes");
            assert_eq!(lab.left.len() as u128, frames);
        }
    }
}
