//! `offhook doctor`: checks whether this installation can take a real call. Prints a line per
//! check, with a remedy.

use std::path::PathBuf;

use serde_json::json;

use super::{Exit, config, print};
use crate::doctor::{Doctor, Finding, State, worst};
use engine::config::Config;
use model::Clock;

/// Options of `offhook doctor`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Configuration file of the installation
    #[arg(long, value_name = "FILE", default_value = "offhook.toml")]
    pub config: PathBuf,
    /// Print one JSON object per line, the verdict last
    #[arg(long)]
    pub json: bool,
}

/// Runs the checks. Exit code 0: no check failed, but there may be warnings; 1: a check failed; 2:
/// invalid configuration.
pub fn run(args: Args) -> Exit {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    super::run_async(examine(config, args.json))
}

/// Runs the checks and prints the findings.
pub(super) async fn examine(config: Config, as_json: bool) -> Exit {
    let doctor = match Doctor::of(config, Clock::real()).await {
        Ok(doctor) => doctor,
        Err(why) => return Exit::failed(why),
    };
    let lines = doctor.examine().await;
    let worst = worst(&lines);
    if as_json {
        lines.iter().for_each(print::json);
        let count = |state: State| lines.iter().filter(|line| line.state == state).count();
        let (ok, warnings, failed) =
            (count(State::Ok), count(State::Warning), count(State::Failed));
        print::json(&json!({"verdict": worst, "ok": ok, "warnings": warnings, "failed": failed}));
    } else {
        print::text(&text(&lines));
    }
    if worst == State::Failed { Exit::Failed } else { Exit::Done }
}

/// Text output: a line per check, with its remedy below.
fn text(lines: &[Finding]) -> String {
    let mut out = String::new();
    for line in lines {
        let subject =
            line.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
        out += &format!(
            "{:<8} {}{}: {}\n",
            line.state.as_str(),
            line.check,
            print::plain(&subject),
            print::plain(&line.what)
        );
        if let Some(fix) = &line.fix {
            out += &format!("         → {}\n", print::plain(fix));
        }
    }
    let failed = lines.iter().filter(|line| line.state == State::Failed).count();
    out += &match (failed, worst(lines)) {
        (0, State::Warning) => "calls can come; look at the warnings\n".to_owned(),
        (0, _) => "calls can come\n".to_owned(),
        (1, _) => "1 thing keeps calls from coming\n".to_owned(),
        (n, _) => format!("{n} things keep calls from coming\n"),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_line_per_check_with_its_remedy_below() {
        let line = |state, fix: Option<&str>| Finding {
            check: "number",
            subject: Some("918035737458".to_owned()),
            state,
            what: "SIP is on\u{1b}".to_owned(),
            fix: fix.map(str::to_owned),
        };
        assert_eq!(
            text(&[line(State::Ok, None), line(State::Failed, Some("switch it off"))]),
            "ok       number 918035737458: SIP is on \nfailed   number 918035737458: SIP is on \n         → switch it off\n\
             1 thing keeps calls from coming\n"
        );
        assert!(
            text(&[line(State::Warning, Some("x"))])
                .ends_with("calls can come; look at the warnings\n")
        );
    }
}
