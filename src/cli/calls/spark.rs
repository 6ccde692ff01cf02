//! Renders audio quality over time as sparklines: the estimated MOS and the loss of each direction.

use std::fmt::Write as _;
use std::time::Duration;

use engine::call::course::{Course, Moment};
use model::DirectionQuality;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Maximum number of blocks in a line. If several samples share a block, the worst one is shown.
const BLOCKS_MAX: usize = 60;
/// Width of the line labels, as in the other lines on audio quality.
const NAME: usize = 13;

/// The lines of each measured direction.
pub(super) fn lines(course: &Course) -> String {
    let moments: Vec<Moment> = course.moments().collect();
    let (Some(first), Some(last)) = (moments.first(), moments.last()) else { return String::new() };
    let mut text = String::new();
    for (way, of) in [
        ("from the user", inbound as fn(&Moment) -> Option<DirectionQuality>),
        ("to the user", outbound),
    ] {
        let mos = worst(&moments, |m| of(m).map(|way| way.mos), f64::min);
        let lost = worst(&moments, |m| of(m).map(|way| way.loss_percent), f64::max);
        if let (Some((least, most)), Some((_, peak))) = (range(&mos), range(&lost)) {
            let _ = writeln!(
                text,
                "{way:>NAME$}  MOS  {}  {least:.1} to {most:.1}",
                blocks(&mos, 1.0, 4.5)
            );
            // The scale reaches at least 10 %, so that a single lost packet is not a full block.
            let _ = writeln!(
                text,
                "{:NAME$}  lost {}  up to {peak:.1} %",
                "",
                blocks(&lost, 0.0, peak.max(10.0))
            );
        }
    }
    if !text.is_empty() {
        let time = |ms: u32| Duration::from_millis(ms.into()).as_secs();
        let _ = writeln!(
            text,
            "{:NAME$}  from {} s to {} s of the call",
            "",
            time(first.from_ms),
            time(last.until_ms)
        );
    }
    text
}

fn inbound(moment: &Moment) -> Option<DirectionQuality> {
    moment.quality?.inbound
}

fn outbound(moment: &Moment) -> Option<DirectionQuality> {
    moment.quality?.outbound
}

/// The worst value of each block.
fn worst(
    moments: &[Moment],
    of: impl Fn(&Moment) -> Option<f64>,
    worse: fn(f64, f64) -> f64,
) -> Vec<Option<f64>> {
    let each = moments.len().div_ceil(BLOCKS_MAX).max(1);
    moments.chunks(each).map(|some| some.iter().filter_map(&of).reduce(worse)).collect()
}

fn range(values: &[Option<f64>]) -> Option<(f64, f64)> {
    let values = || values.iter().flatten().copied();
    values().reduce(f64::min).zip(values().reduce(f64::max))
}

fn blocks(values: &[Option<f64>], low: f64, high: f64) -> String {
    values
        .iter()
        .map(|value| value.map_or(' ', |value| block((value - low) / (high - low))))
        .collect()
}

#[allow(clippy::as_conversions, reason = "bounded")]
fn block(part: f64) -> char {
    let at = (part.clamp(0.0, 1.0) * 7.0).round() as usize;
    BLOCKS.get(at).copied().unwrap_or('█')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{BLOCKS_MAX, lines};
    use engine::call::course::Course;

    fn course(samples: &serde_json::Value) -> Course {
        serde_json::from_value(json!({"from_ms": 1_000, "every_ms": 5_000, "samples": samples}))
            .expect("a course")
    }

    #[test]
    fn draws_each_direction_and_keeps_the_worst_sample() {
        let fine = |n: u32| json!([1_000 + n * 5_000, 250, 0, 4_000, 240, 0, 3_000, 60_000]);
        let mut samples: Vec<_> = (1..=4).map(fine).collect();
        samples[1] = json!([11_000, 250, 50, 30_000, 0, 0, 0, 60_000]);
        let drawn = lines(&course(&json!(samples)));
        let rows: Vec<&str> = drawn.lines().collect();
        assert_eq!(rows.len(), 5, "{drawn}");
        assert!(rows[0].contains("from the user  MOS  █▄██"), "{drawn}");
        assert!(rows[1].contains("lost ▁█▁▁  up to 20.0 %"), "{drawn}");
        assert!(rows[2].contains("to the user  MOS  █ ██"), "no report: {drawn}");
        assert!(rows[4].ends_with("from 1 s to 21 s of the call"), "{drawn}");

        let mut many: Vec<_> = (1..=239).map(fine).collect();
        many[100] = json!([506_000, 250, 25, 4_000, 240, 0, 3_000, 60_000]);
        let drawn = lines(&course(&json!(many)));
        assert!(
            drawn.contains("up to 10.0 %")
                && drawn.lines().all(|line| line.chars().count() < BLOCKS_MAX + 60),
            "{drawn}"
        );
        assert_eq!(lines(&course(&json!([]))), "");
    }
}
