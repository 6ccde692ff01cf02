//! Messages about wrong fields of JSON bodies. serde's messages mention Rust types; they are
//! reworded in terms of JSON.

use super::super::error::ApiError;
use super::super::fields::unknown;

/// Creates the error for a body that can't be deserialized, from the path of the field and serde's
/// message.
pub(super) fn error(path: &str, message: &str) -> ApiError {
    if let Some((name, known)) = unknown_field(message) {
        let field = match path {
            "." | "?" => name.to_owned(),
            path if path.rsplit('.').next() == Some(name) => path.to_owned(),
            path => format!("{path}.{name}"),
        };
        return ApiError::bad_value(field, unknown(name, known.into_iter()));
    }
    // serde names a missing field in its message only.
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    match (missing, path) {
        (Some(name), "." | "?") => {
            ApiError::bad_value(name.to_owned(), format!("{name} is missing"))
        }
        (Some(name), path) => {
            let field = format!("{path}.{name}");
            let message = format!("{field} is missing");
            ApiError::bad_value(field, message)
        }
        (None, "." | "?") => ApiError::bad_body(plain("the body", message)),
        (None, path) => ApiError::bad_value(path.to_owned(), plain(path, message)),
    }
}

/// Returns the name of an unknown field and the known names, from serde's message.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field `")?.split('`');
    Some((quoted.next()?, quoted.skip(1).step_by(2).collect()))
}

/// Rewords serde's message about a field for the client. Messages of Offhook's own types pass
/// unchanged.
fn plain(field: &str, why: &str) -> String {
    // The position in the text follows; the field's path says more.
    let why = why.split(" at line ").next().unwrap_or(why);
    if why.starts_with("UUID parsing failed") {
        return format!("{field} must be a UUID");
    }
    if let Some(rest) = why.strip_prefix("unknown variant ") {
        let words: Vec<&str> = rest
            .split_once(", expected")
            .map_or("", |(_, words)| words)
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        return format!("{field} must be one of {}", words.join(", "));
    }
    if let Some(name) =
        why.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next())
    {
        return format!("{name} is given twice");
    }
    if why.starts_with("data did not match any variant") {
        return format!("{field} has an unknown form");
    }
    let wrong = ["invalid type: ", "invalid value: ", "invalid length "]
        .into_iter()
        .any(|start| why.starts_with(start));
    match why.split_once(", expected ").filter(|_| wrong) {
        Some((_, expected)) => format!("{field} must be {}", json_type(expected)),
        None => why.to_owned(),
    }
}

/// Describes a Rust type in terms of JSON.
fn json_type(expected: &str) -> String {
    let word = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative and not too large",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number, not too large",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "a borrowed string" | "str" | "string or map" => "a string",
        "a formatted UUID string" => "a UUID",
        "a map" => "an object",
        other if other.contains("UUID") => "a UUID",
        other
            if other.starts_with("a sequence")
                || other.starts_with("an array")
                || other.starts_with("a tuple") =>
        {
            "a list"
        }
        other if other.starts_with("struct ") || other.starts_with("internally tagged enum") => {
            "an object"
        }
        // The messages of our own types are already in terms of JSON.
        other => return other.to_owned(),
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::plain;
    use serde::Deserialize;
    use serde_json::json;
    use uuid::Uuid;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
        Two,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        x: bool,
    }

    fn wrong<T: serde::de::DeserializeOwned + std::fmt::Debug>(value: serde_json::Value) -> String {
        plain("field", &serde_json::from_value::<T>(value).unwrap_err().to_string())
    }

    #[test]
    fn names_types_in_terms_of_json() {
        let small = "field must be a whole number, not negative and not too large";
        assert_eq!(wrong::<u32>(json!(-1)), small);
        assert_eq!(wrong::<u32>(json!("7")), small);
        assert_eq!(wrong::<u32>(json!(1.5)), small);
        assert_eq!(wrong::<String>(json!(7)), "field must be a string");
        assert_eq!(wrong::<bool>(json!("yes")), "field must be true or false");
        assert_eq!(wrong::<f64>(json!("x")), "field must be a number");
        assert_eq!(wrong::<Vec<u32>>(json!({})), "field must be a list");
        assert_eq!(wrong::<Inner>(json!(7)), "field must be an object");
        assert_eq!(wrong::<Uuid>(json!("zz")), "field must be a UUID");
        assert_eq!(wrong::<Uuid>(json!(7)), "field must be a UUID");
        assert_eq!(wrong::<Word>(json!("three")), "field must be one of one, two");
        assert_eq!(plain("field", "alias is too long"), "alias is too long");
    }
}
