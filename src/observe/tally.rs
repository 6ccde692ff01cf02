//! Counts of fetches, Graph requests and refused calls for display. Those of requests are read from
//! the Prometheus text, so that each request is counted only once.

use engine::admission::{Gate, Refusals};
use model::Sample;
use model::metric;

/// The number of requests or refused calls of one kind with one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The `kind` of a fetch, the `action` of a Graph request, or the direction and the business
    /// number of refused calls, such as `inbound 918035737458`.
    pub kind: String,
    /// The `outcome` of a fetch, the `status` of a Graph request, or the reason of refusals.
    pub outcome: String,
    pub count: u64,
}

/// Counts since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Requests to customers' servers for documents and audio.
    pub fetches: Vec<Tally>,
    /// Requests to Meta's Graph API.
    pub graph: Vec<Tally>,
    /// Refused calls.
    pub refused: Vec<Tally>,
}

impl Tallies {
    /// Reads the counts from a Prometheus text.
    pub fn of(text: &str) -> Self {
        let of = |name: &str, kind: &str, outcome: &str| {
            let mut found: Vec<Tally> =
                text.lines().filter_map(|line| read(line, name, kind, outcome)).collect();
            found.sort_by(|a, b| (&a.kind, &a.outcome).cmp(&(&b.kind, &b.outcome)));
            found
        };
        Self {
            fetches: of(metric::ANSWER_FETCH_SECONDS, "kind", "outcome"),
            graph: of(metric::GRAPH_REQUEST_SECONDS, "action", "status"),
            refused: Vec::new(),
        }
    }

    /// Adds the calls that a gate has refused.
    pub fn with_refused(self, gate: &Gate) -> Self {
        let tally = |(refused, count): (Refusals, u64)| Tally {
            kind: format!("{} {}", refused.direction.as_str(), refused.number.as_str()),
            outcome: refused.reason.as_str().to_owned(),
            count,
        };
        Self { refused: gate.refusals().into_iter().map(tally).collect(), ..self }
    }
}

/// Whether an `outcome` of a fetch is a success.
pub fn is_fetched(outcome: &str) -> bool {
    outcome == metric::fetch::OK
}

/// Reads the count of a histogram's series.
fn read(line: &str, name: &str, kind: &str, outcome: &str) -> Option<Tally> {
    let sample = Sample::parse(line)?;
    let label = |label: &str| sample.label(label).map(str::to_owned);
    let is_count = sample.name().strip_suffix("_count") == Some(name);
    let count = line.rsplit(' ').next()?.parse().ok()?;
    is_count.then_some(Tally { kind: label(kind)?, outcome: label(outcome)?, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_counts_from_the_prometheus_text() {
        let text = "# TYPE offhook_answer_fetch_seconds histogram\n\
            offhook_answer_fetch_seconds_bucket{kind=\"answer\",outcome=\"ok\",le=\"0.005\"} 3\n\
            offhook_answer_fetch_seconds_sum{kind=\"answer\",outcome=\"ok\"} 0.5\n\
            offhook_answer_fetch_seconds_count{kind=\"answer\",outcome=\"timeout\"} 2\n\
            offhook_answer_fetch_seconds_count{kind=\"answer\",outcome=\"ok\"} 40\n\
            offhook_graph_request_seconds_count{action=\"accept\",status=\"200\"} 39\n\
            offhook_graph_request_seconds_count{status=\"error\",action=\"accept\"} 1\n\
            offhook_graph_request_seconds_count nonsense\n";
        let tallies = Tallies::of(text);
        let of = |kind: &str, outcome: &str, count| Tally {
            kind: kind.to_owned(),
            outcome: outcome.to_owned(),
            count,
        };
        assert_eq!(tallies.fetches, [of("answer", "ok", 40), of("answer", "timeout", 2)]);
        assert_eq!(tallies.graph, [of("accept", "200", 39), of("accept", "error", 1)]);
        assert_eq!(Tallies::of(""), Tallies::default());
    }
}
