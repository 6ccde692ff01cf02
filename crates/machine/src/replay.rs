//! Replays the event log of a call.
//!
//! The same inputs at the same times must lead to the same outputs, byte for byte as JSON. No
//! output is executed.
//!
//! [`rebuild`] replays the log of a live call to get its machine in another process.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Machine;
use crate::contract::{CallState, CallTime, FetchResponse, Input, Output};
use crate::log::{Entry, Header, LogError, Reader};

/// An input that was replayed.
pub struct Step<'a> {
    /// The line of the log, from 1.
    pub line: u64,
    pub at: CallTime,
    pub input: &'a Input,
    /// The outputs of this machine.
    pub outputs: &'a [Output],
    /// The machine after the input.
    pub machine: &'a Machine,
}

/// The first output that differs from the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub line: u64,
    pub at: CallTime,
    /// The input, for display.
    pub input: String,
    /// The position of the output among those of the input, from 1.
    pub output: usize,
    /// The output in the log. `None` if the log has no further one for this input.
    pub expected: Option<Value>,
    /// The output of this machine. `None` if it produced fewer outputs for this input than the log has.
    pub actual: Option<Value>,
}

/// The result of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayReport {
    pub header: Header,
    /// The number of inputs that led to the same outputs.
    pub same: u64,
    pub difference: Option<Difference>,
    /// The number of the last line if that is incomplete. It is not replayed.
    pub cut: Option<u64>,
    /// Whether the call has ended after the last input.
    pub over: bool,
}

/// The inputs of a live call that its log contains in another form, because they must stay out of
/// logs. The machine may still need them as they were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnredactedInputs(BTreeMap<u64, Input>);

impl UnredactedInputs {
    /// Keeps `input` if its line in the event log contains it in another form, `logged`. `line` is the
    /// number of that line, from 1.
    ///
    /// Inputs are kept until the next document begins, which discards all digits and words.
    pub fn note(&mut self, line: u64, input: Input, logged: &Input) {
        if let Input::Fetched { result: Ok(FetchResponse::Document { .. }), .. } = logged {
            self.0.clear();
        } else if input != *logged {
            self.0.insert(line, input);
        }
    }
}

/// The reason why a machine could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("this version decides differently at line {0} of the event log")]
    Difference(u64),
}

/// Rebuilds the machine of a live call from its event log, and checks that it makes the same
/// decisions. Calls `on_step` for each input.
///
/// # Errors
///
/// Fails if the log cannot be read, or if a replay leads to other outputs.
pub fn rebuild(
    log: impl BufRead,
    unredacted: &UnredactedInputs,
    on_step: impl FnMut(&Step<'_>),
) -> Result<Machine, RebuildError> {
    let (report, mut machine) = run(log, unredacted, on_step)?;
    if let Some(line) = report.difference.map(|difference| difference.line) {
        return Err(RebuildError::Difference(line));
    }
    if let Some(line) = report.cut {
        return Err(LogError::Cut { line }.into());
    }
    machine.shrink();
    Ok(machine)
}

/// Replays a log up to its end or its first difference. Calls `on_step` for each input.
///
/// # Errors
///
/// Fails if the log cannot be read.
pub fn replay(log: impl BufRead, on_step: impl FnMut(&Step<'_>)) -> Result<ReplayReport, LogError> {
    Ok(run(log, &UnredactedInputs::default(), on_step)?.0)
}

fn run(
    log: impl BufRead,
    unredacted: &UnredactedInputs,
    mut on_step: impl FnMut(&Step<'_>),
) -> Result<(ReplayReport, Machine), LogError> {
    let (header, mut reader) = Reader::open(log)?;
    let mut machine = Machine::new();
    let mut same = 0;
    let cut = loop {
        let Entry { at, input, outputs: expected } = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break None,
            Err(LogError::Cut { line }) => break Some(line),
            Err(e) => return Err(e),
        };
        let line = reader.line();
        machine.handle(at, unredacted.0.get(&line).unwrap_or(&input).clone());
        let outputs: Vec<Output> = std::iter::from_fn(|| machine.poll()).collect();
        on_step(&Step { line, at, input: &input, outputs: &outputs, machine: &machine });
        let actual = outputs
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<Vec<_>, _>>()
            .map_err(LogError::Write)?;
        if let Some((index, expected, actual)) = first_difference(&expected, &actual) {
            let input = input.to_string();
            let difference = Difference { line, at, input, output: index + 1, expected, actual };
            let (difference, over) = (Some(difference), is_over(&machine));
            return Ok((ReplayReport { header, same, difference, cut: None, over }, machine));
        }
        same += 1;
    };
    let over = is_over(&machine);
    Ok((ReplayReport { header, same, difference: None, cut, over }, machine))
}

fn is_over(machine: &Machine) -> bool {
    machine.state() == Some(CallState::Over)
}

fn first_difference(
    expected: &[Value],
    actual: &[Value],
) -> Option<(usize, Option<Value>, Option<Value>)> {
    let longest = expected.len().max(actual.len());
    (0..longest)
        .map(|index| (index, expected.get(index), actual.get(index)))
        .find(|(_, expected, actual)| expected != actual)
        .map(|(index, expected, actual)| (index, expected.cloned(), actual.cloned()))
}

#[cfg(test)]
mod tests {
    use super::{Difference, replay};

    const LOG: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/calls/menu_by_keys.jsonl"
    ));

    fn difference(log: &str) -> Option<Difference> {
        replay(log.as_bytes(), |_| {}).expect("the log reads").difference
    }

    #[test]
    fn replays_the_same_decisions() {
        let mut steps = Vec::new();
        let replayed = replay(LOG.as_bytes(), |step| steps.push(step.line)).expect("the log reads");
        assert_eq!(replayed.difference, None);
        assert_eq!(replayed.same, steps.len() as u64);
        assert_eq!(steps.len(), LOG.lines().count() - 1);
    }

    #[test]
    fn replays_a_truncated_log_up_to_its_last_complete_line() {
        let lines = LOG.lines().count() as u64;
        let whole = replay(LOG.as_bytes(), |_| {}).expect("the log reads");
        assert_eq!((whole.cut, whole.over), (None, true));
        let unbroken = replay(LOG.trim_end().as_bytes(), |_| {}).expect("the log reads");
        assert_eq!(unbroken, whole, "the line break of the last line is optional");

        let cut = LOG.trim_end().strip_suffix('}').expect("an object");
        let replayed = replay(cut.as_bytes(), |_| {}).expect("the log reads");
        assert_eq!(
            (replayed.same, replayed.cut, replayed.over),
            (whole.same - 1, Some(lines), false)
        );
        let before = LOG.trim_end().rsplit_once('\n').expect("lines").0;
        let replayed = replay(format!("{before}\n").as_bytes(), |_| {}).expect("the log reads");
        assert_eq!((replayed.same, replayed.cut, replayed.over), (whole.same - 1, None, false));

        let third = LOG.lines().nth(2).expect("a third line");
        let middle = LOG.replacen(third, third.strip_suffix('}').expect("an object"), 1);
        let error = replay(middle.as_bytes(), |_| {}).expect_err("unreadable").to_string();
        assert!(error.starts_with("could not read line 3, column"), "{error}");
    }

    #[test]
    fn reports_the_first_difference() {
        let other = LOG.replacen("\"Digits\":\"1\"", "\"Digits\":\"2\"", 1);
        let found = difference(&other).expect("a difference");
        assert_eq!((found.at.0, found.input.as_str(), found.output), (1500, "digit A 1", 3));
        assert_eq!(found.expected.expect("logged")["params"]["Digits"], "2");
        assert_eq!(found.actual.expect("decided")["params"]["Digits"], "1");
    }

    #[test]
    fn an_additional_or_missing_output_is_a_difference() {
        let output = "{\"wish\":\"graph\",\"action\":\"pre_accept\"}";
        let more = LOG.replacen(output, &format!("{output},{output}"), 1);
        let found = difference(&more).expect("a difference");
        assert_eq!(found.at.0, 0);
        let fewer = LOG.replacen(",{\"wish\":\"state\",\"state\":\"preparing\"}", "", 1);
        let found = difference(&fewer).expect("a difference");
        assert_eq!((found.output, found.expected), (4, None));
    }

    /// Lists the fields that each step changes.
    #[test]
    fn snapshots_show_each_step() {
        let mut before = crate::Machine::new().snapshot();
        assert!(
            before.iter().all(|field| field.lines.is_empty()),
            "no lines before the first input"
        );
        assert_eq!(
            before.iter().map(|field| field.name).collect::<Vec<_>>(),
            crate::SNAPSHOT_FIELDS
        );
        let mut table = Vec::new();
        replay(LOG.as_bytes(), |step| {
            let now = step.machine.snapshot();
            assert_eq!(now, step.machine.snapshot(), "a snapshot changes nothing");
            let changed =
                now.iter().zip(&before).filter(|(now, was)| now != was).map(|(field, _)| {
                    let lines: Vec<String> = field.lines.iter().map(ToString::to_string).collect();
                    format!("{}={}", field.name, lines.join(" · "))
                });
            table.push(format!("{} {}", step.at.0, changed.collect::<Vec<_>>().join("; ")));
            before = now;
        })
        .expect("the log reads");
        let expected = [
            "0 state=preparing; slot=held; graph=pre_accept in_flight; waits_for=media_path · fetch 1 answer; legs=A …5678 \
             path_not_up; timers=accept_wait 3000 ms · fetch 11000 ms · accept_deadline 20000 ms",
            "90 graph=pre_accept answered",
            "150 waits_for=fetch 1 answer; legs=A …5678 path_up",
            "200 state=accepting; graph=pre_accept answered · accept in_flight; document=number 1 element 0/2; \
             waits_for=accept_response · answered_and_connected; timers=reap 90200 ms",
            "350 state=live; answered=350 ms; graph=pre_accept answered · accept answered; document=number 1 element 1/2; \
             instruction=<GetInput> line 2; waits_for=prompt_or_digit 1; digits=attempts_left 0; timers=max_call 14400350 ms",
            "1500 instruction=; waits_for=fetch 2 action; digits=; timers=fetch 12500 ms · max_call 14400350 ms",
            "1650 document=number 2 element 1/1; instruction=<Speak> line 2; waits_for=play 2; timers=max_call 14400350 ms",
            "2900 state=closing; graph=pre_accept answered · accept answered · terminate in_flight; document=; instruction=; \
             waits_for=terminate_webhook; legs=A …5678 path_closed; ended=end_of_instructions; timers=reap 92900 ms",
            "3100 graph=pre_accept answered · accept answered · terminate answered; timers=close 8100 ms · reap 92900 ms",
            "3200 state=over; slot=given_back; waits_for=; hung_up=COMPLETED; timers=",
        ];
        assert_eq!(table, expected);
    }

    #[test]
    fn snapshots_hide_secret_digits() {
        let log = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/calls/log_false_hides_keys.jsonl"
        ));
        let mut digits = Vec::new();
        replay(log.as_bytes(), |step| {
            let picture = step.machine.snapshot();
            let field = picture.iter().find(|field| field.name == "digits").expect("the field");
            digits.extend(
                field
                    .lines
                    .first()
                    .map(ToString::to_string)
                    .filter(|line| !line.starts_with("attempts")),
            );
        })
        .expect("the log reads");
        assert_eq!(digits, ["x", "xx", "xxx"]);
    }
}
