//! Charts of the audio quality over a call, in both directions, with a table of the values.

use std::time::Duration;

use super::chart::{self, Line};
use super::i18n::Lang;
use super::view;
use engine::call::course::{Course, Moment};
use model::DirectionQuality;

/// A chart, with the labels of its value axis from top to bottom.
pub(super) struct Graph {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) marks: Vec<String>,
    /// Empty if no sample has enough packets.
    pub(super) svg: String,
    /// CSS class and text key of each line.
    pub(super) legend: Vec<(&'static str, &'static str)>,
}

/// A row of the table: one sample.
pub(super) struct SampleRow {
    pub(super) from: String,
    pub(super) until: String,
    /// MOS, loss and jitter of audio from the user, then to the user.
    pub(super) ways: [[String; 3]; 2],
    pub(super) round_trip: String,
}

/// The charts and the table of a call.
#[derive(Default)]
pub(super) struct QualityView {
    pub(super) graphs: Vec<Graph>,
    /// Labels of the time axis.
    pub(super) times: Vec<String>,
    pub(super) table: Vec<SampleRow>,
}

/// A line: CSS class, text key of its name, and the value of a sample.
type LineSpec = (&'static str, &'static str, fn(&Moment) -> Option<f64>);

const MOS: [LineSpec; 2] = [
    ("in", "call.audio.in", |m| inbound(m).map(|w| w.mos)),
    ("out", "call.audio.out", |m| outbound(m).map(|w| w.mos)),
];
const LOSS: [LineSpec; 2] = [
    ("in", "call.audio.in", |m| inbound(m).map(|w| w.loss_percent)),
    ("out", "call.audio.out", |m| outbound(m).map(|w| w.loss_percent)),
];
const DELAY: [LineSpec; 3] = [
    ("in", "call.jitter.in", |m| inbound(m).map(|w| w.jitter_ms)),
    ("out", "call.jitter.out", |m| outbound(m).map(|w| w.jitter_ms)),
    ("trip", "call.round_trip", |m| m.quality?.round_trip_ms),
];

/// The quality from the person, if enough packets came to tell.
fn inbound(moment: &Moment) -> Option<DirectionQuality> {
    moment.quality?.conclusive().inbound
}

/// The quality to the person, if enough packets were sent to tell.
fn outbound(moment: &Moment) -> Option<DirectionQuality> {
    moment.quality?.conclusive().outbound
}

/// Renders the quality samples. Empty if nothing was measured.
pub(super) fn quality_view(lang: Lang, course: &Course) -> QualityView {
    let moments: Vec<Moment> = course.moments().collect();
    let (Some(first), Some(last)) = (moments.first(), moments.last()) else {
        return QualityView::default();
    };
    if moments.iter().all(|moment| moment.quality.is_none()) {
        return QualityView::default();
    }
    let draw =
        Drawing { lang, moments: &moments, span: (seconds(first.from_ms), seconds(last.until_ms)) };
    let graphs = vec![
        draw.graph("mos", "call.mos_chart", &MOS, (1.0, 5.0), ""),
        draw.graph("loss", "call.loss_chart", &LOSS, (0.0, draw.top(&LOSS)), " %"),
        draw.graph("delay", "call.delay_chart", &DELAY, (0.0, draw.top(&DELAY)), " ms"),
    ];
    let quarter = |n: u32| first.from_ms + last.until_ms.saturating_sub(first.from_ms) / 4 * n;
    let mut times: Vec<String> =
        (0..=4).map(|n| clock(if n == 4 { last.until_ms } else { quarter(n) })).collect();
    // In a call of a few seconds, several labels may be equal: only the last of them is kept.
    for n in (0..4).rev() {
        if let Some([one, rest @ ..]) = times.get_mut(n..)
            && rest.iter().any(|later| later == one)
        {
            one.clear();
        }
    }
    QualityView {
        graphs,
        times,
        table: moments.iter().map(|moment| sample_row(lang, moment)).collect(),
    }
}

struct Drawing<'a> {
    lang: Lang,
    moments: &'a [Moment],
    /// Start and end, in seconds of the call.
    span: (f64, f64),
}

impl Drawing<'_> {
    fn values(&self, value: fn(&Moment) -> Option<f64>) -> Vec<(f64, f64)> {
        // A single sample is drawn as a horizontal line.
        if let [only] = self.moments {
            let ends = value(only)
                .map(|value| [only.from_ms, only.until_ms].map(|ms| (seconds(ms), value)));
            return ends.into_iter().flatten().collect();
        }
        let middle = |m: &Moment| f64::midpoint(seconds(m.from_ms), seconds(m.until_ms));
        self.moments.iter().filter_map(|moment| Some((middle(moment), value(moment)?))).collect()
    }

    /// Upper end of the value axis.
    #[allow(clippy::as_conversions, reason = "percents and milliseconds, to be drawn")]
    fn top(&self, drawn: &[LineSpec]) -> f64 {
        let most = drawn
            .iter()
            .flat_map(|(_, _, value)| self.values(*value))
            .map(|(_, value)| value)
            .fold(0.0, f64::max);
        chart::ceiling(most.ceil().clamp(0.0, 1e9) as usize) as f64
    }

    /// Formats a value, with a decimal only if it is not zero.
    fn figure(&self, value: f64) -> String {
        let text = format!("{value:.1}");
        self.lang.decimals(text.strip_suffix(".0").map_or(text.clone(), str::to_owned))
    }

    fn graph(
        &self,
        id: &'static str,
        title: &'static str,
        drawn: &[LineSpec],
        (low, high): (f64, f64),
        unit: &str,
    ) -> Graph {
        let mut description = vec![self.lang.t(title).to_owned()];
        let mut lines = Vec::new();
        let mut legend = Vec::new();
        for (class, name, value) in drawn {
            let points = self.values(*value);
            let least = points.iter().map(|(_, value)| *value).reduce(f64::min);
            let most = points.iter().map(|(_, value)| *value).reduce(f64::max);
            if let (Some(least), Some(most)) = (least, most) {
                description.push(format!(
                    "{}: {}–{}{unit}",
                    self.lang.t(name),
                    self.figure(least),
                    self.figure(most)
                ));
                legend.push((*class, *name));
                lines.push(Line { class, points });
            }
        }
        let marks = (0..=4_u8).map(|n| high - (high - low) * f64::from(n) / 4.0);
        let marks = marks
            .enumerate()
            .map(|(n, mark)| format!("{}{}", self.figure(mark), if n == 0 { unit } else { "" }));
        let svg = match lines.is_empty() {
            true => String::new(),
            false => chart::lines(&lines, self.span, (low, high), &description.join(" · ")),
        };
        Graph { id, title, marks: marks.collect(), svg, legend }
    }
}

fn sample_row(lang: Lang, moment: &Moment) -> SampleRow {
    let way = |way: Option<DirectionQuality>| match way {
        Some(way) => [
            format!("{:.1}", way.mos),
            format!("{:.1} %", way.loss_percent),
            format!("{:.0} ms", way.jitter_ms),
        ]
        .map(|text| lang.decimals(text)),
        None => ["–", "–", "–"].map(str::to_owned),
    };
    let trip = moment.quality.and_then(|quality| quality.round_trip_ms);
    SampleRow {
        from: clock(moment.from_ms),
        until: clock(moment.until_ms),
        ways: [way(inbound(moment)), way(outbound(moment))],
        round_trip: trip.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0} ms")),
    }
}

fn clock(ms: u32) -> String {
    view::clock(Duration::from_millis(ms.into()))
}

fn seconds(ms: u32) -> f64 {
    f64::from(ms) / 1_000.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn course(samples: &serde_json::Value) -> Course {
        serde_json::from_value(json!({"from_ms": 1_000, "every_ms": 5_000, "samples": samples}))
            .expect("a course")
    }

    #[test]
    fn renders_lines_axes_and_a_table() {
        let samples = json!([
            [6_000, 250, 0, 4_000, 240, 0, 3_000, 80_000],
            [11_000, 250, 25, 30_000, 0, 0, 0, 120_000],
            [16_000, 250, 0, 4_000, 240, 0, 3_000, 80_000],
        ]);
        let quality_view = quality_view(Lang::En, &course(&samples));
        let ids: Vec<_> =
            quality_view.graphs.iter().map(|graph| (graph.id, graph.marks.join(" "))).collect();
        assert_eq!(
            ids,
            [
                ("mos", "5 4 3 2 1".to_owned()),
                ("loss", "10 % 7.5 5 2.5 0".to_owned()),
                ("delay", "200 ms 150 100 50 0".to_owned()),
            ]
        );
        assert_eq!(quality_view.times, ["0:01", "0:04", "0:08", "0:12", "0:16"]);
        let mos = &quality_view.graphs[0];
        assert!(
            mos.svg.contains("class=\"line in\"") && mos.svg.contains("class=\"line out\""),
            "{}",
            mos.svg
        );
        assert!(
            quality_view.graphs[1].svg.contains("From the person: 0–10 %"),
            "{}",
            quality_view.graphs[1].svg
        );
        let row = &quality_view.table[1];
        assert_eq!(
            (row.from.as_str(), row.until.as_str(), row.round_trip.as_str()),
            ("0:06", "0:11", "120 ms")
        );
        assert_eq!(
            (row.ways[0][1].as_str(), row.ways[1][0].as_str()),
            ("10.0 %", "–"),
            "no report"
        );
    }

    #[test]
    fn samples_with_too_few_packets_are_not_drawn() {
        let few = quality_view(Lang::En, &course(&json!([[3_000, 49, 9, 4_000, 49, 0, 0, 0]])));
        assert!(few.graphs.iter().all(|graph| graph.svg.is_empty() && graph.legend.is_empty()));
        assert_eq!(few.table[0].ways, [["–", "–", "–"], ["–", "–", "–"]]);
        let samples = json!([[6_000, 250, 0, 4_000, 0, 0, 0, 0], [6_300, 9, 3, 4_000, 0, 0, 0, 0]]);
        let ending = quality_view(Lang::En, &course(&samples));
        assert!(
            ending.graphs[1].svg.contains("From the person: 0–0 %"),
            "{}",
            ending.graphs[1].svg
        );
    }

    #[test]
    fn a_call_without_audio_has_no_charts() {
        let short = quality_view(Lang::En, &course(&json!([[3_000, 100, 0, 4_000, 0, 0, 0, 0]])));
        assert!(
            short.graphs[1].svg.contains("M0.0,140.0 L640.0,140.0"),
            "one alone is level: {}",
            short.graphs[1].svg
        );
        assert!(quality_view(Lang::De, &course(&json!([]))).graphs.is_empty());
        assert!(
            quality_view(Lang::De, &course(&json!([[6_000, 0, 0, 0, 0, 0, 0, 0]])))
                .table
                .is_empty()
        );
    }
}
