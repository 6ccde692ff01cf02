//! `offhook xml run`: tests an application without a call, for developers and for a customer's CI.
//!
//! The implementation is in `call::walk`. This module handles the options, the account and its
//! tokens, and the exit code. `walked` prints the steps.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::super::{Exit, config, run_async};
use super::source;
use super::walked::Printer;
use crate::{node, speech_settings};
use engine::admission::Specs;
use engine::admission::book::Book;
use engine::answer::{AT_ONCE_PER_HOST, Fetcher, Notifier, RandomSource, SigningKeys};
use engine::call::CallSettings;
use engine::call::walk::{Bounds, CallParties, Callee, Caller, Job, Key, Walker};
use engine::config::Config;
use machine::{CallUrls, MachineLimits};
use model::Clock;
use model::Secret;
use model::{AuthId, E164, Method, PhoneNumberId};
use sim::caller::{KeyStep, parse_keys};
use sim::world;
use speech::recognise::Recognisers;
use xml::MAX_BODY;
use xml::ast::DocUrl;

/// Options of `offhook xml run`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Answer URL, or a file with the answer document; `-` reads standard input
    #[arg(value_name = "URL|FILE|-")]
    pub source: String,
    /// WhatsApp number of the calling user
    #[arg(long, value_name = "WA_ID", default_value = world::USER)]
    pub from: String,
    /// Business number that is called [default: the demo number, or the first of --config with
    /// calling enabled]
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<String>,
    /// Profile name of the user
    #[arg(long, value_name = "NAME", default_value = world::USER_NAME)]
    pub name: String,
    /// Keys for each GetInput and GetDigits in turn, separated by commas: `1,,42#` presses 1, then
    /// nothing, then 42#; `w` waits 0.5 s, `W` waits 1 s
    #[arg(long, value_name = "KEYS,…", default_value = "")]
    pub digits: String,
    /// Seconds after the answer at which the caller hangs up [default: never, unless nothing can
    /// follow]
    #[arg(long, value_name = "SECONDS", value_parser = crate::cli::whole(0_u32..=86_400), allow_negative_numbers = true)]
    pub hangup_after: Option<u32>,
    /// What the target of a Dial does: `answers` (and hangs up after ten seconds), `declines`,
    /// `busy`, `absent`
    #[arg(long, value_name = "WHAT", default_value = "answers", value_parser = callee)]
    pub callee: Callee,
    /// Method for the answer URL [default: POST, or as in --config]
    #[arg(long, value_name = "METHOD", value_parser = method)]
    pub method: Option<Method>,
    /// Fallback URL, requested with POST [default: as in --config, or none]
    #[arg(long, value_name = "URL", value_parser = super::super::http_url)]
    pub fallback_url: Option<url::Url>,
    /// Hangup URL, requested with POST [default: as in --config, or the answer URL]
    #[arg(long, value_name = "URL", value_parser = super::super::http_url)]
    pub hangup_url: Option<url::Url>,
    /// Show callbacks without sending them
    #[arg(long)]
    pub no_callbacks: bool,
    /// Treat warnings of the linter as failures
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Configuration with the account, tokens, URLs and answer settings of the number
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Account named in requests; not used with --config [default: the account of `offhook dev`]
    #[arg(long, value_name = "AUTH_ID", env = "OFFHOOK_AUTH_ID")]
    pub auth_id: Option<String>,
    /// Token that signs requests; not used with --config [default: the token of `offhook dev`]
    #[arg(long, value_name = "TOKEN", env = "OFFHOOK_AUTH_TOKEN", hide_env_values = true)]
    pub auth_token: Option<Secret>,
    /// Allow http URLs and private addresses, as [answer].allow_insecure does [default: true, or as
    /// in --config]
    #[arg(long, value_name = "BOOL")]
    pub allow_insecure: Option<bool>,
    /// Maximum number of documents; an application that needs more has failed
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = crate::cli::whole(1_u32..=2_000), allow_negative_numbers = true)]
    pub max_documents: u32,
    /// Maximum real time, callbacks included
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = crate::cli::whole(1_u32..=3_600), allow_negative_numbers = true)]
    pub max_seconds: u32,
}

/// Runs the test. Exit code 0: passed; 1: the application failed; 2: wrong usage.
pub(super) fn run(args: Args) -> Exit {
    let (job, insecure) = match prepare(&args) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let egress = match source::egress(insecure) {
        Ok(egress) => egress,
        Err(why) => return Exit::failed(why),
    };
    let (clock, random) = (Clock::real(), RandomSource::system());
    let walker = Walker {
        fetcher: Fetcher::new(egress.clone(), clock.clone(), random.clone()),
        notifier: Notifier::new(egress, clock.clone(), random.clone(), AT_ONCE_PER_HOST),
        clock,
        random,
    };
    let (json, strict) = (args.json, args.strict);
    run_async(async move {
        let mut printer = Printer::new(json);
        let walked = walker.walk(job, |step| printer.step(&step)).await;
        printer.end(&walked, strict);
        if walked.ok(strict) { Exit::Done } else { Exit::Failed }
    })
}

/// Creates the job from the options, and returns whether insecure URLs are allowed.
fn prepare(args: &Args) -> Result<(Job, bool), Exit> {
    let account = match &args.config {
        Some(file) => Business::of_config(&config::load(file)?, args.to.as_deref())?,
        None => Business::of_options(args)?,
    };
    let from = number("--from", &args.from)?;
    let (answer, document) = if source::is_url(&args.source) {
        (DocUrl(args.source.as_str().into()), None)
    } else {
        let bytes = source::bytes(&args.source).map_err(Exit::usage)?;
        (DocUrl(format!("file:{}", args.source).into()), Some(bytes.into()))
    };
    let posted = |url: &url::Url| (DocUrl(url.as_str().into()), Method::Post);
    let method = args.method.unwrap_or(account.method);
    let hangup = args
        .hangup_url
        .as_ref()
        .map(posted)
        .or(account.hangup)
        .unwrap_or_else(|| (answer.clone(), method));
    let fallback = args.fallback_url.as_ref().map(posted).or(account.fallback);
    let keys = parse_digits(&args.digits)
        .map_err(|e| Exit::usage(format_args!("--digits {}: {e}", args.digits)))?;
    let insecure = args.allow_insecure.unwrap_or(account.insecure);
    let mut limits = account.settings.limits;
    limits.allow_plain_urls = insecure;
    let job = Job {
        calling: CallParties {
            from,
            to: account.number,
            caller_name: args.name.clone(),
            cta_payload: None,
            deeplink_payload: None,
            phone_number_id: account.phone_number_id,
            account: account.auth_id,
            parent_account: account.parent,
            urls: CallUrls { answer, answer_method: method, fallback, hangup },
            limits,
        },
        keys: account.keys,
        max_body: account.settings.max_body,
        document,
        caller: Caller {
            keys,
            hangs_up_after: args.hangup_after.map(|s| Duration::from_secs(s.into())),
            callee: args.callee,
        },
        callbacks: !args.no_callbacks,
        bounds: Bounds {
            documents: args.max_documents,
            time: Duration::from_secs(args.max_seconds.into()),
        },
    };
    Ok((job, insecure))
}

/// Account and number of the called business.
struct Business {
    number: String,
    phone_number_id: PhoneNumberId,
    auth_id: AuthId,
    parent: AuthId,
    keys: SigningKeys,
    settings: CallSettings,
    insecure: bool,
    method: Method,
    fallback: Option<(DocUrl, Method)>,
    hangup: Option<(DocUrl, Method)>,
}

impl Business {
    /// Returns the values of `offhook dev`, overridden by the options.
    fn of_options(args: &Args) -> Result<Self, Exit> {
        let id = args.auth_id.as_deref().unwrap_or(world::ACCOUNT);
        let auth_id = AuthId::parse(id).ok_or_else(|| {
            Exit::usage(format_args!(
                "--auth-id {id}: expected MA (an account) or SA (a subaccount) and 18 capital letters \
                 or digits"
            ))
        })?;
        let token = args.auth_token.clone().unwrap_or_else(|| Secret::new(world::AUTH_TOKEN));
        Ok(Self {
            number: number("--to", args.to.as_deref().unwrap_or(world::NUMBER))?,
            phone_number_id: PhoneNumberId::from(world::PHONE_NUMBER_ID),
            parent: auth_id.clone(),
            auth_id,
            keys: SigningKeys::of_main(&[token]),
            settings: CallSettings {
                limits: MachineLimits {
                    sip_host: Ipv4Addr::LOCALHOST.to_string(),
                    // Unknown, so there is no remark about it.
                    can_transcribe: true,
                    ..MachineLimits::default()
                },
                max_body: MAX_BODY,
            },
            insecure: true,
            method: Method::Post,
            fallback: None,
            hangup: None,
        })
    }

    /// Returns the values of a node with this configuration.
    fn of_config(config: &Config, to: Option<&str>) -> Result<Self, Exit> {
        let Specs { accounts, numbers, .. } = Book::of_file(config.admission()).specs();
        let wanted = to.map(|to| number("--to", to)).transpose()?;
        let found = numbers.into_iter().find(|n| match &wanted {
            Some(wanted) => n.number.as_str() == wanted,
            None => n.calling_enabled,
        });
        let Some(spec) = found else {
            return Err(match wanted {
                Some(wanted) => {
                    Exit::usage(format_args!("--to {wanted}: the configuration has no such number"))
                }
                None => Exit::usage(
                    "the configuration has no number with calling enabled: name one with --to",
                ),
            });
        };
        // Validation of the configuration has checked that accounts and parents exist.
        let account = |id: &AuthId| accounts.iter().find(|a| a.auth_id == *id);
        let Some(own) = account(&spec.account) else {
            return Err(Exit::usage(format_args!(
                "the configuration has no account {}",
                spec.account.as_str()
            )));
        };
        let main = own.parent.as_ref().and_then(account).unwrap_or(own);
        Ok(Self {
            number: spec.number.as_str().to_owned(),
            phone_number_id: spec.phone_number_id,
            auth_id: own.auth_id.clone(),
            parent: main.auth_id.clone(),
            keys: SigningKeys::new(&own.tokens, &main.tokens),
            settings: node::call_settings(config, can_transcribe(config)),
            insecure: config.answer.allow_insecure,
            method: spec.answer.map_or(Method::Post, |(_, method)| method),
            fallback: spec.fallback,
            hangup: spec.hangup,
        })
    }
}

fn number(option: &str, text: &str) -> Result<String, Exit> {
    let bare = text.trim().trim_start_matches("whatsapp:");
    let number = E164::parse(bare).map_err(|why| Exit::usage(format_args!("{option}: {why}")))?;
    Ok(number.as_str().to_owned())
}

fn callee(text: &str) -> Result<Callee, String> {
    match text {
        "answers" => Ok(Callee::Answers),
        "declines" => Ok(Callee::Declines),
        "busy" => Ok(Callee::Busy),
        "absent" => Ok(Callee::Absent),
        _ => Err("use answers, declines, busy or absent".to_owned()),
    }
}

fn method(text: &str) -> Result<Method, String> {
    [Method::Get, Method::Post]
        .into_iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| "use GET or POST".to_owned())
}

/// Parses `--digits`: one list of keys with pauses per collection.
fn parse_digits(digits: &str) -> Result<VecDeque<Vec<Key>>, String> {
    if digits.is_empty() {
        return Ok(VecDeque::new());
    }
    digits.split(',').map(|entry| parse_entry(entry.trim())).collect()
}

fn parse_entry(entry: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    let mut after = Duration::ZERO;
    for step in parse_keys(entry)? {
        match step {
            KeyStep::Pause(pause) => after += pause,
            KeyStep::Press(digit) => keys.push(Key { after: std::mem::take(&mut after), digit }),
        }
    }
    Ok(keys)
}

/// Whether a node with this configuration can transcribe recordings.
fn can_transcribe(config: &Config) -> bool {
    let recognisers = speech_settings::read(config).ok().map(|speech| Recognisers::new(&speech));
    recognisers.and_then(Result::ok).is_some_and(|all| all.can_recognise(all.transcript_language()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse_digits;

    #[test]
    fn entries_of_digits() {
        let rows = |text: &str| {
            let entries = parse_digits(text).expect("digits");
            entries
                .iter()
                .map(|keys| keys.iter().map(|k| k.digit.as_char()).collect::<String>())
                .collect::<Vec<_>>()
        };
        assert!(rows("").is_empty());
        assert_eq!(rows("1"), ["1"]);
        assert_eq!(rows("1,,42#, *"), ["1", "", "42#", "*"]);
        assert_eq!(rows(","), ["", ""]);
        let pauses: Vec<_> =
            parse_digits("1wW2").expect("digits")[0].iter().map(|k| k.after).collect();
        assert_eq!(pauses, [Duration::ZERO, Duration::from_millis(1_500)]);
        assert!(parse_digits("1,x").is_err_and(|e| e.contains("'x'")));
    }
}
