//! Times of small pieces of work, compared on a machine that does other things as well.
//!
//! Each piece runs in short batches, the pieces by turns; what counts is each one's best batch: the only one that
//! nothing interrupted. A mean would measure the neighbours.

use std::time::Duration;

use model::Clock;

/// How long a batch is to take: far below a time slice of the scheduler.
const BATCH: Duration = Duration::from_micros(30);
/// Batches of each piece.
const ROUNDS: usize = 20_000;

/// Nanoseconds of one run of each piece, at its best.
pub(crate) fn best<const N: usize>(mut pieces: [&mut dyn FnMut(); N]) -> [f64; N] {
    let clock = Clock::real();
    let time = |piece: &mut dyn FnMut(), runs: u32| {
        let begun = clock.now();
        for _ in 0..runs {
            piece();
        }
        (clock.now() - begun) / runs
    };
    let mut runs = [1_u32; N];
    for (piece, runs) in pieces.iter_mut().zip(&mut runs) {
        let once =
            (0..100).map(|_| time(piece, 1)).min().unwrap_or_default().max(Duration::from_nanos(1));
        *runs = u32::try_from(BATCH.as_nanos() / once.as_nanos()).unwrap_or(1).clamp(1, 10_000);
    }
    let mut best = [f64::MAX; N];
    for _ in 0..ROUNDS {
        for ((piece, runs), best) in pieces.iter_mut().zip(runs).zip(&mut best) {
            let begun = clock.now();
            for _ in 0..runs {
                piece();
            }
            *best = best.min((clock.now() - begun).as_nanos() as f64 / f64::from(runs));
        }
    }
    best
}

/// A figure beside its target, in the one form that all benches print.
pub(crate) fn ratio(what: &str, ours: f64, floor: f64, target: f64) {
    println!(
        "{what}: {ours:.0} ns over {floor:.0} ns, ratio {:.2} (target {target})",
        ours / floor
    );
}
