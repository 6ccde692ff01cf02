//! Alerts and dashboards use only metrics, labels and label values that exist, and every alert has
//! a unit test and a section with its remedies. `promtool` checks the rest (`.ci/run`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use engine::alerts::{Alert, Rule};
use model::metric::{self, Kind};
use serde_json::Value;

/// Labels that Prometheus adds.
const ADDED: &[&str] = &["instance", "job", "le"];

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The labels of each metric in `docs/reference/metrics.md`.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics = BTreeMap::new();
    for line in read("docs/reference/metrics.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", name, _, labels, _, ""] = cells[..]
            && let Some(name) = name.strip_prefix("`offhook_")
        {
            let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            metrics.insert(format!("offhook_{}", name.trim_end_matches('`')), labels);
        }
    }
    metrics
}

/// The words in backticks of the pages that list label values.
fn words() -> BTreeSet<String> {
    let pages = ["docs/reference/metrics.md", "docs/reference/meta.md"].map(read).join("\n");
    pages.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The alerts of `alerts.yml` with their expressions.
fn alerts() -> BTreeMap<String, String> {
    let text = read("deploy/prometheus/alerts.yml");
    let alert = |block: &str| {
        let (name, rest) = block.split_once('\n').expect("a name on a line of its own");
        let (expr, _) = rest.split_once("labels: {").expect("labels after the expression");
        (name.to_owned(), expr.trim_start().trim_start_matches("expr:").to_owned())
    };
    text.split("- alert: ").skip(1).map(alert).collect()
}

/// Every expression of alerts and dashboards with the place that it is in.
fn expressions() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = alerts().into_iter().collect();
    let dashboards = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana");
    for file in fs::read_dir(dashboards).expect("a folder") {
        let path = file.expect("an entry").path();
        let page: Value =
            serde_json::from_str(&fs::read_to_string(&path).expect("text")).expect("JSON");
        for panel in page["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().expect("targets") {
                let place = format!("{}: {}", path.display(), panel["title"]);
                found.push((place, target["expr"].as_str().expect("an expression").to_owned()));
            }
        }
    }
    found
}

/// The metrics of an expression, each with what its braces select: label, value.
fn selectors(expr: &str) -> Vec<(String, Vec<(String, String)>)> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let selector = |(at, _): (usize, &str)| {
        let rest = &expr[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let braces = rest[end..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let pairs = braces.map_or("", |(inner, _)| inner).split("\",").filter_map(|pair| {
            let (label, value) = pair.split_once('=')?;
            let value = value.trim_start_matches('~').trim_matches('"');
            Some((label.trim_end_matches('!').to_owned(), value.to_owned()))
        });
        (rest[..end].to_owned(), pairs.collect())
    };
    expr.match_indices("offhook_").map(selector).collect()
}

/// The labels in `by (…)` and `on (…)`.
fn grouped_by(expr: &str) -> BTreeSet<&str> {
    let lists = ["by (", "on ("].into_iter().flat_map(|word| expr.split(word).skip(1));
    let labels = lists.filter_map(|rest| rest.split(')').next()).flat_map(|list| list.split(','));
    labels.map(str::trim).collect()
}

#[test]
fn the_page_of_metrics_lists_those_of_the_code() {
    let code: BTreeSet<&str> = metric::ALL.iter().map(|(name, _, _)| *name).collect();
    let page = documented();
    assert_eq!(page.keys().map(String::as_str).collect::<BTreeSet<_>>(), code);
}

/// `message` is the text of a log line itself: a field of this name would be there twice.
#[test]
fn no_field_of_a_log_line_is_called_message() {
    fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, found),
                false if path.extension().is_some_and(|is| is == "rs") => found.push(path),
                false => {}
            }
        }
    }
    let mut files = Vec::new();
    ["src", "crates"].iter().for_each(|folder| sources(folder.as_ref(), &mut files));
    assert!(files.len() > 300, "{}", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for field in ["message = %", "message = ?"] {
            assert!(!text.contains(field), "{}: {field}", file.display());
        }
    }
}

#[test]
fn alerts_and_dashboards_use_metrics_and_labels_that_exist() {
    let (page, words) = (documented(), words());
    let histograms: BTreeSet<&str> =
        metric::ALL.iter().filter(|(_, kind, _)| *kind == Kind::Histogram).map(|m| m.0).collect();
    let mut faults = Vec::new();
    let mut count = 0;
    for (place, expr) in expressions() {
        let mut known: BTreeSet<&str> = ADDED.iter().copied().collect();
        for (name, pairs) in selectors(&expr) {
            count += 1;
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let base = base.filter(|base| histograms.contains(base)).unwrap_or(&name);
            let Some((_, labels)) = page.get_key_value(base) else {
                faults.push(format!("{place}: no metric {name}"));
                continue;
            };
            if histograms.contains(name.as_str()) {
                faults.push(format!("{place}: {name} has only _bucket, _sum and _count"));
            }
            known.extend(labels.iter().map(String::as_str));
            for (label, value) in pairs.iter().filter(|(label, _)| !ADDED.contains(&&**label)) {
                if !labels.contains(label) {
                    faults.push(format!("{place}: {name} has no label {label}"));
                }
                let is_status = label == "status";
                for value in value.split('|').filter(|_| !is_status) {
                    if !words.contains(value) {
                        faults.push(format!("{place}: {label} of {name} is never {value:?}"));
                    }
                }
            }
        }
        let unknown = grouped_by(&expr).into_iter().filter(|label| !known.contains(label));
        faults.extend(unknown.map(|label| format!("{place}: no metric here has a label {label}")));
    }
    assert!(count > 100, "{count} uses of metrics");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_alert_has_a_unit_test_and_a_section_with_its_remedies() {
    let (tests, rules) =
        (read("deploy/prometheus/alerts_test.yml"), read("deploy/prometheus/alerts.yml"));
    let operations = read("docs/operations.md");
    for name in alerts().into_keys() {
        assert!(tests.contains(&format!("- alertname: {name}\n")), "no unit test of {name}");
        assert!(operations.contains(&format!("### {name}\n")), "no section about {name}");
        let runbook = format!("runbook: docs/operations.md#{}\n", name.to_lowercase());
        assert!(rules.contains(&runbook), "{name}: {runbook}");
    }
}

#[test]
fn alerts_of_the_node_are_those_of_prometheus() {
    let rules = read("deploy/prometheus/alerts.yml");
    let known = alerts();
    for alert in Alert::ALL {
        let title = alert.title();
        assert!(known.contains_key(&title), "alerts.yml has no {title}");
        let block = rules.split(&format!("- alert: {title}\n")).nth(1).expect("its block");
        let severity = format!("labels: {{severity: {}}}", alert.severity());
        let block = block.split("- alert: ").next().expect("its lines");
        assert!(block.contains(&severity), "{title}");
        let Rule { window, above, share, held } = alert.rule();
        let for_line = block.lines().find_map(|line| line.trim().strip_prefix("for: "));
        assert_eq!(for_line.map_or(Duration::ZERO, duration), held, "{title}: for");
        let expr = &known[&title];
        let windows: BTreeSet<_> = expr
            .split('[')
            .skip(1)
            .map(|rest| duration(rest.split(']').next().expect("the end of a window")))
            .collect();
        assert!(
            windows.iter().copied().eq((!window.is_zero()).then_some(window)),
            "{title}: {windows:?}"
        );
        let thresholds: BTreeSet<&str> =
            expr.split("> ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
        let is_gauge = expr.contains("== 1");
        let wanted = [Some(above).filter(|_| !is_gauge), share].into_iter().flatten();
        for threshold in wanted {
            assert!(thresholds.contains(threshold.to_string().as_str()), "{title}: {thresholds:?}");
        }
    }
}

/// Reads a duration like `5m`.
fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => panic!("{text}"),
    };
    Duration::from_secs(number.parse::<u64>().expect("a number") * seconds)
}

#[test]
fn selectors_are_read_from_an_expression() {
    let expr =
        "sum by (why) (rate(offhook_a_total{x=~\"b|c\",y!=\"d\"}[5m])) > 0 and on (z) offhook_e";
    let pair = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    let a = ("offhook_a_total".to_owned(), vec![pair("x", "b|c"), pair("y", "d")]);
    assert_eq!(selectors(expr), [a, ("offhook_e".to_owned(), Vec::new())]);
    assert_eq!(grouped_by(expr), BTreeSet::from(["why", "z"]));
}
