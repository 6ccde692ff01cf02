//! Renders charts as inline SVG, styled with CSS classes. Each has a table with the same values
//! beside it.

use std::fmt::Write as _;

/// Width and height of a chart, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 140.0;

/// Returns the smallest round number that is at least `most`, for the end of an axis.
pub(super) fn ceiling(most: usize) -> usize {
    let mut step = 1_usize;
    loop {
        for round in [1, 2, 4, 5, 10] {
            if let Some(top) = step.checked_mul(round).filter(|top| *top >= most) {
                return top.max(4);
            }
        }
        let Some(next) = step.checked_mul(10) else { return most };
        step = next;
    }
}

#[allow(clippy::as_conversions, reason = "counts of calls, to be drawn")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

/// An area chart over time. `slots` values fill the width; the last value is at the right edge.
pub(super) fn area(values: &[usize], slots: usize, title: &str) -> String {
    let top = to_f64(ceiling(values.iter().copied().max().unwrap_or_default()));
    let step = WIDTH / to_f64(slots.max(2) - 1);
    let first = WIDTH - step * to_f64(values.len().saturating_sub(1));
    let (mut line, mut at) = (String::new(), first);
    for (n, value) in values.iter().enumerate() {
        let y = HEIGHT - HEIGHT * to_f64(*value) / top;
        let _ = write!(line, "{}{at:.1},{y:.1}", if n == 0 { "M" } else { " L" });
        at += step;
    }
    let body = match values.len() {
        0 | 1 => String::new(),
        _ => format!(
            "<path class=\"area\" d=\"{line} L{WIDTH},{HEIGHT} L{first:.1},{HEIGHT} Z\"/><path class=\"line\" d=\"{line}\"/>"
        ),
    };
    svg(&body, title)
}

/// Stacked bars; each part has its CSS class.
pub(super) fn bars(columns: &[Vec<(usize, &'static str)>], title: &str) -> String {
    let sum =
        |column: &Vec<(usize, &'static str)>| column.iter().map(|(value, _)| value).sum::<usize>();
    let top = to_f64(ceiling(columns.iter().map(sum).max().unwrap_or_default()));
    let step = WIDTH / to_f64(columns.len().max(1));
    let gap = (step * 0.25).min(6.0);
    let mut body = String::new();
    for (n, column) in columns.iter().enumerate() {
        let (x, mut y) = (step * to_f64(n) + gap / 2.0, HEIGHT);
        for (value, class) in column {
            let height = HEIGHT * to_f64(*value) / top;
            y -= height;
            if *value > 0 {
                let width = step - gap;
                let _ = write!(
                    body,
                    "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"1.5\"/>"
                );
            }
        }
    }
    svg(&body, title)
}

/// A line over time. It connects the values on both sides of a gap.
pub(super) struct Line {
    pub(super) class: &'static str,
    /// Time in seconds and value of each point.
    pub(super) points: Vec<(f64, f64)>,
}

/// A line chart from time `from` to `to` and value `low` to `high`.
pub(super) fn lines(
    lines: &[Line],
    (from, to): (f64, f64),
    (low, high): (f64, f64),
    title: &str,
) -> String {
    let across = |at: f64| ((at - from) / (to - from).max(0.001)).clamp(0.0, 1.0) * WIDTH;
    let down =
        |value: f64| HEIGHT - ((value - low) / (high - low).max(0.001)).clamp(0.0, 1.0) * HEIGHT;
    let mut body = String::new();
    for Line { class, points } in lines {
        let mut path = String::new();
        for (n, (at, value)) in points.iter().enumerate() {
            let _ = write!(
                path,
                "{}{:.1},{:.1}",
                if n == 0 { "M" } else { " L" },
                across(*at),
                down(*value)
            );
        }
        if let [_] = points.as_slice() {
            // The round line cap turns this into a dot.
            path.push_str(" h0.1");
        }
        if !path.is_empty() {
            let _ = write!(body, "<path class=\"line {class}\" d=\"{path}\"/>");
        }
    }
    svg(&body, title)
}

fn svg(body: &str, title: &str) -> String {
    let mut grid = String::new();
    for quarter in 0..=4_u8 {
        let y = HEIGHT * f64::from(quarter) / 4.0;
        let _ = write!(
            grid,
            "<line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        );
    }
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<svg class=\"chart\" viewBox=\"0 -4 {WIDTH} 148\" preserveAspectRatio=\"none\" role=\"img\"><title>{title}</title>{grid}{body}</svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        assert_eq!([0, 4, 5, 7, 11, 41, 1_000].map(ceiling), [4, 4, 5, 10, 20, 50, 1_000]);
    }

    #[test]
    fn lines_stay_within_their_axes() {
        let line = |points: &[(f64, f64)]| Line { class: "in", points: points.to_vec() };
        let drawn = lines(
            &[line(&[(0.0, 1.0), (5.0, 3.0), (20.0, 9.0)]), line(&[])],
            (0.0, 10.0),
            (1.0, 5.0),
            "MOS",
        );
        assert!(drawn.contains("d=\"M0.0,140.0 L320.0,70.0 L640.0,0.0\""), "{drawn}");
        assert_eq!(drawn.matches("<path").count(), 1);
        assert!(
            lines(&[line(&[(3.0, 2.0)])], (3.0, 3.0), (0.0, 0.0), "x").contains(" h0.1\""),
            "one point is a dot"
        );
    }

    #[test]
    fn draws_any_values() {
        assert!(!area(&[], 10, "x").contains("path") && area(&[1, 2], 2, "<x>").contains("&lt;x>"));
        assert!(bars(&[vec![(1, "good"), (0, "bad")]], "x").matches("<rect").count() == 1);
    }
}
