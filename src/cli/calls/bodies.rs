//! Bodies of requests and responses, printed below a waterfall or in `--json`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::print::plain;
use engine::call::waterfall::{Body, Fidelity, Flow, Kind, Waterfall};

/// The bodies of a call as text, grouped by bar.
pub(super) fn text(fall: &Waterfall) -> String {
    let mut text = "\nsent and received\n".to_owned();
    for bar in fall.bars.iter().filter(|bar| !bar.bodies.is_empty()) {
        let _ = writeln!(text, "\n{}", plain(&bar.name));
        for body in &bar.bodies {
            let way = match body.way {
                Flow::Out => "→",
                Flow::In => "←",
            };
            let _ = writeln!(text, "  {way} {}{}", plain(&body.head), remark(body));
            for line in body.text.lines() {
                let _ = writeln!(text, "      {}", plain(line));
            }
            if let Some(whole) = body.cut_of {
                let _ = writeln!(text, "      … cut at {} of {whole} bytes", body.text.len());
            }
        }
    }
    text
}

fn remark(body: &Body) -> &'static str {
    match (body.kept, body.kind, body.way) {
        (Fidelity::Whole, ..) => "",
        (Fidelity::Rebuilt, Kind::Sdp, _) => "  (without passwords)",
        (Fidelity::Rebuilt, ..) => "  (rebuilt from the event log)",
        (Fidelity::Not, _, Flow::Out) => "  (its body is not kept)",
        (Fidelity::Not, _, Flow::In) => "  (a body of the answer is not kept)",
    }
}

/// A body as a JSON object.
pub(super) fn object(body: &Body) -> Value {
    json!({
        "way": body.way.as_str(), "head": body.head, "kind": body.kind.as_str(), "text": body.text,
        "cut_of": body.cut_of, "kept": body.kept.as_str(),
    })
}
