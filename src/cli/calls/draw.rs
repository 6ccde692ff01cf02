//! Renders a waterfall as text: a header, the set-up on its own scale, then the whole call, and a
//! line that names the slowest part.
//!
//! Bars are as wide as the terminal allows. Colour is optional and carries no extra information:
//! failed bars are marked `✗` and the slowest one `◀`.

use std::fmt::Write as _;

use super::super::print::plain;
use super::spark;
use engine::call::waterfall::{Actor, Bar, Waterfall};
use model::{CallQuality, DirectionQuality};
use xml::ast::Severity;

/// Output style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Ansi,
}

impl Paint {
    pub(super) fn of(colour: bool) -> Self {
        if colour { Self::Ansi } else { Self::Plain }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::Ansi if !text.trim().is_empty() => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::Ansi | Self::Plain => text.to_owned(),
        }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const YELLOW: &str = "1;33";

fn colour_of(what: Actor) -> &'static str {
    match what {
        Actor::Node => "35",
        Actor::Graph => "36",
        Actor::Customer => "34",
        Actor::Media => "32",
        Actor::Instruction => "37",
        Actor::Person => "33",
    }
}

const NAME: usize = 24;
const TIME: usize = 10;
const NOTE: usize = 26;
/// The scale may extend past the call's end by 1/`AFTER_END` of its duration.
const AFTER_END: i64 = 4;
/// Minimum width of the bars, in columns.
const BAR_MIN: usize = 20;
const BAR_MAX: usize = 120;
/// The slowest bar is mentioned if it took at least 1/`SLOW_SHARE` of the set-up.
const SLOW_SHARE: i64 = 4;
/// Requests that deliver the local SDP to Meta.
const SDP_REQUESTS: [&str; 3] = ["graph pre_accept", "graph accept", "graph connect"];

/// Renders a call for a terminal of `width` columns.
pub(super) fn waterfall(fall: &Waterfall, width: usize, paint: Paint) -> String {
    let mut text = head(fall, paint);
    let set_up_end = fall.set_up_us();
    // Splits the bars into those of the set-up and the rest.
    let beginning = |bar: &&Bar| {
        bar.what != Actor::Instruction
            && bar.what != Actor::Person
            && set_up_end.is_none_or(|end| bar.from_us <= end)
    };
    let (set_up, rest): (Vec<&Bar>, Vec<&Bar>) = fall.bars.iter().partition(beginning);
    let slowest = slowest(&set_up, set_up_end);
    section(&mut text, "set-up", &set_up, set_up_end, slowest.map(|s| s.bar), width, paint);
    section(&mut text, "the call", &rest, fall.ended_us, None, width, paint);
    if fall.left_out > 0 {
        let _ = writeln!(text, "\n{} more are not shown", fall.left_out);
    }
    notes(&mut text, fall, paint);
    text.push('\n');
    text += &verdict(fall, slowest);
    text
}

/// Writes the findings in documents, the audio quality, the voices and recognisers, and the
/// remarks.
fn notes(text: &mut String, fall: &Waterfall, paint: Paint) {
    if !fall.findings.is_empty() {
        let _ = writeln!(text, "\n{}", paint.wrap(BOLD, "findings in its documents"));
    }
    for (at, f) in &fall.findings {
        let (severity, code) = match f.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let rule = paint.wrap(code, &format!("{severity} {}", plain(&f.rule)));
        let finding = format!("line {}, column {}: {}", f.at.line, f.at.column, plain(&f.message));
        let _ = writeln!(
            text,
            "{:>TIME$}  {rule} at {finding}\n{:TIME$}  {}",
            time(*at),
            "",
            plain(&f.hint)
        );
    }
    if let Some(quality) = &fall.quality {
        sound(text, quality, paint);
    }
    if let Some(course) = &fall.course {
        text.push_str(&spark::lines(course));
    }
    if !fall.voices.is_empty() || !fall.recognisers.is_empty() {
        let _ = writeln!(text, "\n{}", paint.wrap(BOLD, "speech"));
    }
    for (voice, count) in &fall.voices {
        let _ = writeln!(text, "{:>TIME$}  {} ({count})", "spoken", plain(&voice.to_string()));
    }
    for (by, count) in &fall.recognisers {
        let _ = writeln!(text, "{:>TIME$}  {} ({count})", "recognised", plain(&by.to_string()));
    }
    if !fall.remarks.is_empty() {
        let _ = writeln!(text, "\n{}", paint.wrap(BOLD, "remarks"));
    }
    for (at, remark) in &fall.remarks {
        let _ = writeln!(text, "{:>TIME$}  {}", time(*at), plain(remark));
    }
}

/// Writes the audio quality in both directions.
fn sound(text: &mut String, quality: &CallQuality, paint: Paint) {
    let _ = writeln!(text, "\n{}", paint.wrap(BOLD, "sound"));
    // Packets to the user are counted up to the last receiver report, which may be seconds before
    // the end.
    let ways = [
        ("from the user", &quality.inbound, ""),
        ("to the user", &quality.outbound, " reported on by the user's side"),
    ];
    for (name, way, how) in ways {
        if let Some(way) = way {
            let DirectionQuality { packets, loss_percent, jitter_ms, r_factor, mos } = way;
            let noun = if *packets == 1 { "packet" } else { "packets" };
            let _ = write!(text, "{name:>TIME$}  {packets} {noun}{how}");
            let _ = if !way.is_conclusive() {
                writeln!(text, ": too few for an estimate")
            } else {
                let lost = format!("{loss_percent:.2} % lost, jitter {jitter_ms:.1} ms");
                writeln!(text, ", {lost}; estimated MOS {mos:.2} (R {r_factor:.0})")
            };
        }
    }
    if let Some(trip) = quality.round_trip_ms {
        let _ = writeln!(text, "{:>TIME$}  {trip:.0} ms", "round trip");
    }
}

fn head(fall: &Waterfall, paint: Paint) -> String {
    let mut text = paint.wrap(BOLD, &format!("call {}", fall.call));
    let _ = write!(text, "  {} → {}", plain(&fall.from), plain(&fall.to));
    if let Some(started) = fall.started {
        let _ = write!(text, "  {started}");
    }
    text.push('\n');
    if let Some(trace) = fall.trace_id {
        let _ = writeln!(text, "{}", paint.wrap(DIM, &format!("trace {trace}")));
    }
    text
}

fn section(
    text: &mut String,
    title: &str,
    bars: &[&Bar],
    end: Option<i64>,
    slowest: Option<&Bar>,
    width: usize,
    paint: Paint,
) {
    if bars.is_empty() {
        return;
    }
    let from = bars.iter().map(|b| b.from_us).min().unwrap_or_default();
    let last = bars
        .iter()
        .filter_map(|b| b.to_us)
        .chain(bars.iter().map(|b| b.from_us))
        .max()
        .unwrap_or(from);
    // Bars that last longer than the set-up do not change its scale, and retries of callbacks long
    // after the call's end do not change that of the call.
    let to = match end {
        None => last,
        Some(end) if title == "set-up" => end.max(from),
        Some(end) => last.clamp(end, end.max(from) + (end - from).max(0) / AFTER_END),
    };
    let room = width.saturating_sub(NAME + 2 * TIME + NOTE + 6).clamp(BAR_MIN, BAR_MAX);
    let scale = Scale { from, to: to.max(from + 1), room };
    let title = paint.wrap(BOLD, &format!("{title:<NAME$}"));
    let _ = writeln!(text, "\n{title}{:>TIME$}{:>TIME$}", "at", "took");
    for bar in bars {
        row(text, bar, 0, &scale, slowest, paint);
        bar.parts.iter().for_each(|part| row(text, part, 1, &scale, slowest, paint));
    }
}

fn row(
    text: &mut String,
    bar: &Bar,
    depth: usize,
    scale: &Scale,
    slowest: Option<&Bar>,
    paint: Paint,
) {
    let moment = bar.to_us == Some(bar.from_us);
    let name = fit(&format!("{}{}", "  ".repeat(depth), plain(&bar.name)), NAME);
    let took = match bar.took_us() {
        Some(_) if moment => String::new(),
        Some(took) => time(took),
        None => "no end".to_owned(),
    };
    let mark = if bar.failed { "✗ " } else { "" };
    let note = fit(&format!("{mark}{}", plain(&bar.note)), NOTE);
    let is_slowest = slowest.is_some_and(|s| std::ptr::eq(s, bar));
    let code = match (bar.failed, is_slowest) {
        (true, _) => RED,
        (false, true) => YELLOW,
        (false, false) => colour_of(bar.what),
    };
    let note = if bar.failed { paint.wrap(RED, &note) } else { note };
    let name = if depth > 0 { paint.wrap(DIM, &name) } else { name };
    let line = format!(
        "{name}{:>TIME$}{took:>TIME$}  {note}  {}{}",
        time(bar.from_us),
        paint.wrap(code, &scale.bar(bar.from_us, bar.to_us)),
        if is_slowest { " ◀" } else { "" },
    );
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Maps microseconds to columns.
struct Scale {
    from: i64,
    to: i64,
    room: usize,
}

impl Scale {
    /// Position of a time in eighths of a column, clamped to the scale.
    fn eighths(&self, at: i64) -> usize {
        let (span, room) = (i128::from(self.to - self.from), self.room as i128 * 8);
        let at = i128::from(at.clamp(self.from, self.to) - self.from);
        usize::try_from(at * room / span).unwrap_or_default()
    }

    /// The indented bar: a diamond for an instant, at least an eighth of a column for a duration,
    /// and an arrow if it ends past the scale.
    fn bar(&self, from: i64, to: Option<i64>) -> String {
        let (start, end) = (self.eighths(from), self.eighths(to.unwrap_or(self.to)));
        let column = (start / 8).min(self.room - 1);
        let mut bar = " ".repeat(column);
        if to == Some(from) {
            bar.push('◆');
            return bar;
        }
        // A bar starts at a whole column; only block characters that are filled from the left exist
        // in eighths.
        let eighths = end.saturating_sub(start).max(1);
        bar += &"█".repeat(eighths / 8);
        let rest =
            [None, Some('▏'), Some('▎'), Some('▍'), Some('▌'), Some('▋'), Some('▊'), Some('▉')];
        bar.extend(rest.get(eighths % 8).copied().flatten());
        if to.is_none_or(|to| to > self.to) {
            bar.push('→');
        }
        bar
    }
}

/// The part that took most of the set-up.
#[derive(Clone, Copy)]
struct Slowest<'a> {
    bar: &'a Bar,
    within: Option<&'a Bar>,
    took: i64,
    of: i64,
}

fn slowest<'a>(set_up: &[&'a Bar], end: Option<i64>) -> Option<Slowest<'a>> {
    let begin = set_up.iter().map(|b| b.from_us).min()?;
    let end = end.or_else(|| set_up.iter().filter_map(|b| b.to_us).max())?;
    let of = end - begin;
    // Only time within the set-up counts, and cancelled work delays nothing.
    let took = |bar: &Bar| bar.to_us.unwrap_or(end).min(end) - bar.from_us;
    // ICE cannot complete before Graph has the local SDP, so that time counts for the request.
    let sdp_sent = set_up
        .iter()
        .filter(|b| SDP_REQUESTS.contains(&b.name.as_str()))
        .filter_map(|b| b.to_us)
        .min();
    let own = |bar: &Bar| match sdp_sent {
        Some(sent) if bar.name == "ICE" => took(bar) - (sent.min(end) - bar.from_us).max(0),
        _ => took(bar),
    };
    let bar =
        set_up.iter().copied().filter(|bar| bar.note != "closed").max_by_key(|bar| own(bar))?;
    if took(bar) <= 0 || took(bar) * SLOW_SHARE < of {
        return None;
    }
    // A part is named if it took most of the bar. With retries and pauses no part does, so the bar
    // is named.
    let part =
        bar.parts.iter().max_by_key(|part| took(part)).filter(|part| took(part) * 2 >= took(bar));
    let (bar, within) = part.map_or((bar, None), |part| (part, Some(bar)));
    Some(Slowest { bar, within, took: took(bar), of })
}

fn verdict(fall: &Waterfall, slowest: Option<Slowest<'_>>) -> String {
    let mut text = match fall.set_up_us() {
        Some(end) => {
            let begin = fall.bars.iter().map(|b| b.from_us).min().unwrap_or_default();
            format!("Set-up took {}", time(end - begin))
        }
        None => "The call was not answered".to_owned(),
    };
    if let Some(Slowest { bar, within, took, of }) = slowest {
        let of_what = within.map_or(String::new(), |bar| format!(" of {}", plain(&bar.name)));
        let _ = write!(
            text,
            "; {} of {} went into {}{of_what}",
            time(took),
            time(of),
            plain(&bar.name)
        );
        // The number of requests, if there were several.
        if !bar.parts.is_empty() && bar.note.ends_with(" requests)") {
            let _ = write!(text, ", {}", plain(&bar.note));
        }
    }
    text.push_str(".\n");
    match (fall.ended_us, fall.cause) {
        (Some(ended), Some(cause)) => {
            let _ = writeln!(text, "Ended after {}: {cause}.", time(ended));
        }
        _ => text.push_str("The call is live, its end is not written yet, or its node crashed.\n"),
    }
    text
}

/// Formats a duration with three digits and a unit.
fn time(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let abs = us.unsigned_abs();
    let (unit, name) = if abs < 1_000_000 { (1e3, "ms") } else { (1e6, "s") };
    let amount = abs as f64 / unit;
    let digits = match amount {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{sign}{amount:.digits$} {name}")
}

/// Pads or truncates a text to exactly `columns` columns.
fn fit(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    if count <= columns {
        return format!("{text}{}", " ".repeat(columns - count));
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Paint, sound, time, waterfall};
    use engine::call::waterfall::{Actor, Bar, Waterfall};
    use model::{CallQuality, DirectionQuality};

    fn menu() -> Waterfall {
        let log =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/waterfalls/menu.jsonl"));
        Waterfall::of(log.as_bytes()).expect("it reads")
    }

    #[test]
    fn names_voices_and_recognisers() {
        let log = concat!(
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/waterfalls/menu.jsonl")),
            r#"{"trace":"spoken","play":1,"voices":[{"engine":"neural","voice":"hibari","language":"en-US"}]}"#,
            "\n",
            r#"{"trace":"spoken","play":9,"voices":[{"engine":"neural","voice":"hibari","language":"en-US"},{"engine":"builtin","voice":"en-US","language":"pl-PL"}]}"#,
            "\n",
            r#"{"trace":"recognised","recognition":1,"recogniser":"whisper","language":"en-US"}"#,
            "\n",
            r#"{"at":99000,"input":{"fact":"speech","recognition":1,"what":{"speech":"understood","text":"yes","confidence":90}},"outputs":[]}"#,
            "\n",
        );
        let fall = Waterfall::of(log.as_bytes()).expect("it reads");
        let drawn = waterfall(&fall, 100, Paint::Plain);
        let speech = drawn.lines().skip_while(|line| *line != "speech").take(4);
        let expected = [
            "speech",
            "    spoken  neural hibari, en-US (2)",
            "    spoken  builtin en-US, pl-PL (1)",
            "recognised  whisper, en-US (1)",
        ];
        assert_eq!(speech.collect::<Vec<_>>(), expected);
        let notes: Vec<&str> = fall.bars.iter().map(|bar| bar.note.as_str()).collect();
        assert!(notes.contains(&"neural hibari, en-US"), "{notes:?}");
        assert!(notes.contains(&"understood by whisper, en-US"), "{notes:?}");
    }

    fn bar(what: Actor, name: &str, note: &str, from_ms: i64, to_ms: i64, parts: Vec<Bar>) -> Bar {
        Bar {
            what,
            name: name.to_owned(),
            from_us: from_ms * 1_000,
            to_us: Some(to_ms * 1_000),
            note: note.to_owned(),
            failed: false,
            span: None,
            parts,
            bodies: Vec::new(),
        }
    }

    /// The set-up line of a call that was answered when the last of `bars` ended.
    fn of_set_up(bars: Vec<Bar>) -> String {
        let answered_us = bars.iter().filter_map(|b| b.to_us).max();
        let drawn = waterfall(&Waterfall { bars, answered_us, ..menu() }, 100, Paint::Plain);
        drawn.lines().rev().nth(1).unwrap_or_default().to_owned()
    }

    #[test]
    fn names_the_slowest_phase_even_if_no_part_dominates_it() {
        let graph = |name: &str, from, to, parts| {
            bar(Actor::Graph, name, "200 (3 requests)", from, to, parts)
        };
        let tried = |at| bar(Actor::Graph, "try", "503", at, at + 2, Vec::new());
        // Retries: each is short, with pauses between them.
        let accept = vec![
            bar(Actor::Media, "ICE", "", 0, 30, Vec::new()),
            graph("graph pre_accept", 2, 20, Vec::new()),
            graph("graph accept", 38, 914, vec![tried(38), tried(440), tried(912)]),
        ];
        assert_eq!(
            of_set_up(accept),
            "Set-up took 914 ms; 876 ms of 914 ms went into graph accept, 200 (3 requests)."
        );
        // One request without a response took most of the time.
        let silent = bar(Actor::Graph, "try 1", "timeout", 40, 3_040, Vec::new());
        let silence = vec![graph("graph accept", 40, 3_100, vec![silent, tried(3_098)])];
        assert_eq!(
            of_set_up(silence),
            "Set-up took 3.06 s; 3.00 s of 3.06 s went into try 1 of graph accept."
        );
        // ICE cannot proceed before Graph has the local SDP.
        let late_sdp = vec![
            bar(Actor::Media, "ICE", "", 0, 1_000, Vec::new()),
            graph("graph pre_accept", 10, 900, vec![tried(10), tried(400), tried(898)]),
            bar(Actor::Graph, "graph accept", "200", 1_010, 1_050, Vec::new()),
        ];
        assert_eq!(
            of_set_up(late_sdp),
            "Set-up took 1.05 s; 890 ms of 1.05 s went into graph pre_accept, 200 (3 requests)."
        );
        let no_path = vec![
            bar(Actor::Media, "ICE", "", 0, 1_000, Vec::new()),
            bar(Actor::Graph, "graph pre_accept", "200", 10, 50, Vec::new()),
        ];
        assert_eq!(of_set_up(no_path), "Set-up took 1.00 s; 1.00 s of 1.00 s went into ICE.");
        // Redirects.
        let hop =
            |n: i64| bar(Actor::Customer, "request", "302", n * 200, n * 200 + 180, Vec::new());
        let hops = vec![bar(
            Actor::Customer,
            "fetch answer",
            "200 (5 requests)",
            0,
            1_000,
            (0..5).map(hop).collect(),
        )];
        assert_eq!(
            of_set_up(hops),
            "Set-up took 1.00 s; 1.00 s of 1.00 s went into fetch answer, 200 (5 requests)."
        );
    }

    #[test]
    fn a_silent_bot_and_a_late_prompt_are_not_part_of_the_set_up() {
        let answered_us = Some(81_000);
        let sound = |note, from, to| bar(Actor::Media, "first sound", note, from, to, Vec::new());
        for (sound, took) in [
            (sound("of the stream's server", 90, 7_100), "Set-up took 81.0 ms"),
            (sound("", 5_000, 5_040), "Set-up took 81.0 ms"),
            (sound("", 82, 130), "Set-up took 130 ms"),
        ] {
            let accept = bar(Actor::Graph, "graph accept", "200", 0, 81, Vec::new());
            let bars = vec![accept, sound];
            let drawn = waterfall(&Waterfall { bars, answered_us, ..menu() }, 100, Paint::Plain);
            assert!(drawn.contains(took), "{drawn}");
        }
    }

    /// Compares the rendering of each log with the committed one. `UPDATE=1 cargo test --lib draws`
    /// rewrites them.
    #[test]
    fn draws_each_log_as_committed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/waterfalls");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).expect("the fixtures") {
            let log = entry.expect("an entry").path();
            if log.extension().is_none_or(|e| e != "jsonl") {
                continue;
            }
            seen += 1;
            let fall =
                Waterfall::of(std::fs::read(&log).expect("a log").as_slice()).expect("it reads");
            let drawn = format!(
                "{}\n--- 140 columns\n{}",
                waterfall(&fall, 80, Paint::Plain),
                waterfall(&fall, 140, Paint::Plain)
            );
            let golden = log.with_extension("txt");
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&golden, &drawn).expect("written");
            }
            let expected = std::fs::read_to_string(&golden).unwrap_or_default();
            assert_eq!(drawn, expected, "{}: run with UPDATE=1 to rewrite", golden.display());
            assert!(!drawn.contains('\u{1b}'));
            let coloured = waterfall(&fall, 80, Paint::Ansi);
            assert!(coloured.contains("\u{1b}[36m") && coloured.matches("\u{1b}[0m").count() > 10);
        }
        assert!(seen >= 3, "{seen} logs");
    }

    #[test]
    fn few_packets_have_neither_loss_nor_a_mos() {
        let way = |packets| {
            Some(DirectionQuality {
                packets,
                loss_percent: 0.0,
                jitter_ms: 1.0,
                r_factor: 92.0,
                mos: 4.38,
            })
        };
        let drawn = |inbound, outbound| {
            let quality =
                CallQuality { inbound: way(inbound), outbound: way(outbound), round_trip_ms: None };
            let mut text = String::new();
            sound(&mut text, &quality, Paint::Plain);
            text
        };
        assert_eq!(
            drawn(130, 1),
            "\nsound\nfrom the user  130 packets, 0.00 % lost, jitter 1.0 ms; estimated MOS 4.38 (R 92)\n\
             to the user  1 packet reported on by the user's side: too few for an estimate\n"
        );
        assert_eq!(
            drawn(49, 50),
            "\nsound\nfrom the user  49 packets: too few for an estimate\nto the user  50 packets reported on by the user's side, \
             0.00 % lost, jitter 1.0 ms; estimated MOS 4.38 (R 92)\n"
        );
    }

    #[test]
    fn draws_any_log_in_any_width() {
        let log = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/calls/retries_of_get_digits.jsonl"
        ));
        let lines: Vec<&str> = log.lines().collect();
        for many in 1..=lines.len() {
            let part = lines.get(..many).expect("in range").join("\n");
            let fall = Waterfall::of(part.as_bytes()).expect("it reads");
            for width in [0, 1, 79, 80, 200, 10_000] {
                assert!(waterfall(&fall, width, Paint::Plain).ends_with(".\n"));
            }
        }
    }

    #[test]
    fn times_have_three_figures_and_a_unit() {
        let cases = [
            (0, "0.00 ms"),
            (-850, "-0.85 ms"),
            (9_990, "9.99 ms"),
            (12_345, "12.3 ms"),
            (999_000, "999 ms"),
            (1_234_567, "1.23 s"),
            (21_500_000, "21.5 s"),
            (i64::MIN, "-9223372036855 s"),
        ];
        for (us, expected) in cases {
            assert_eq!(time(us), expected);
        }
    }
}
