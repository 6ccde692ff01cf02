//! Renders the latest calls as a table.

use super::super::print::plain;
use super::source::CallRow;

/// One row per call, below a header row.
pub(super) fn table(calls: &[CallRow]) -> String {
    let mut text = format!(
        "{:<36}  {:<24}  {:<8}  {:<15}  {:<15}  {:>8}  {}\n",
        "call", "began", "", "from", "to", "lasted", "ended by"
    );
    for call in calls {
        let lasted = call.bill_seconds.map_or_else(|| "…".to_owned(), |secs| format!("{secs} s"));
        let cause = call.cause.as_deref().unwrap_or("(not ended)");
        let [began, direction, from, to, cause] =
            [&call.started_at, &call.direction, &call.from, &call.to, cause].map(plain);
        text += &format!(
            "{:<36}  {began:<24}  {direction:<8}  {from:<15}  {to:<15}  {lasted:>8}  {cause}\n",
            call.call_uuid.to_string(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::source::CallRow;
    use super::table;

    #[test]
    fn prints_one_row_per_call() {
        let ended = CallRow {
            call_uuid: "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11".parse().expect("a UUID"),
            direction: "inbound".to_owned(),
            from: "…5678".to_owned(),
            to: "918035737458".to_owned(),
            started_at: "2026-11-20T06:03:11.120Z".to_owned(),
            ended_at: Some("2026-11-20T06:03:31.520Z".to_owned()),
            duration_seconds: Some(22),
            bill_seconds: Some(21),
            cause: Some("caller_hangup\u{1b}[31m".to_owned()),
        };
        let open = CallRow { ended_at: None, bill_seconds: None, cause: None, ..ended.clone() };
        let expected = "\
call                                  began                               from             to                 lasted  ended by
3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11  2026-11-20T06:03:11.120Z  inbound   …5678            918035737458         21 s  caller_hangup [31m
3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11  2026-11-20T06:03:11.120Z  inbound   …5678            918035737458            …  (not ended)
";
        assert_eq!(table(&[ended, open]), expected);
    }
}
