//! Timing of short operations on a machine that also runs other programs.
//!
//! The operations run alternately in short batches. The result is the fastest batch of each, the
//! one that was not interrupted. A mean would include the other load of the machine.

use std::time::Duration;

use model::Clock;

/// Target duration of a batch, far below a time slice of the scheduler.
const BATCH: Duration = Duration::from_micros(30);
/// Number of batches per operation.
const ROUNDS: usize = 20_000;

/// Returns the best time of one run of each operation, in nanoseconds.
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

/// Prints a result with its target, in the format that all benches share.
pub(crate) fn ratio(what: &str, ours: f64, floor: f64, target: f64) {
    println!(
        "{what}: {ours:.0} ns over {floor:.0} ns, ratio {:.2} (target {target})",
        ours / floor
    );
}
