//! What is wrong with a field, for people: the JSON reader speaks of Rust's types.

/// The reader's words on a field, as a sentence. Words of our own pass as they are.
pub(super) fn said(field: &str, why: &str) -> String {
    // What follows is where in the text it is; the field says it better.
    let why = why.split(" at line ").next().unwrap_or(why);
    if why.starts_with("UUID parsing failed") {
        return format!("{field} must be an id: a UUID");
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
    if let Some(name) = why.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
    {
        return format!("there is no field {name}");
    }
    if let Some(name) =
        why.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next())
    {
        return format!("{name} is there twice");
    }
    if why.starts_with("data did not match any variant") {
        return format!("{field} has no form that is known");
    }
    let wrong = ["invalid type: ", "invalid value: ", "invalid length "]
        .into_iter()
        .any(|start| why.starts_with(start));
    match why.split_once(", expected ").filter(|_| wrong) {
        Some((_, expected)) => format!("{field} must be {}", kind(expected)),
        None => why.to_owned(),
    }
}

/// A type of Rust's, in words.
fn kind(expected: &str) -> String {
    let word = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => {
            "a whole number that is not negative, and not too large"
        }
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number, and not too large",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "a borrowed string" | "str" | "string or map" => "a text",
        "a formatted UUID string" => "an id: a UUID",
        "a map" => "an object",
        other if other.contains("UUID") => "an id: a UUID",
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
        // What our own types expect is worded by them.
        other => return other.to_owned(),
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::said;
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
        said("field", &serde_json::from_value::<T>(value).unwrap_err().to_string())
    }

    #[test]
    fn the_readers_words_are_plain_sentences() {
        let small = "field must be a whole number that is not negative, and not too large";
        assert_eq!(wrong::<u32>(json!(-1)), small);
        assert_eq!(wrong::<u32>(json!("7")), small);
        assert_eq!(wrong::<u32>(json!(1.5)), small);
        assert_eq!(wrong::<String>(json!(7)), "field must be a text");
        assert_eq!(wrong::<bool>(json!("yes")), "field must be true or false");
        assert_eq!(wrong::<f64>(json!("x")), "field must be a number");
        assert_eq!(wrong::<Vec<u32>>(json!({})), "field must be a list");
        assert_eq!(wrong::<Inner>(json!(7)), "field must be an object");
        assert_eq!(wrong::<Uuid>(json!("zz")), "field must be an id: a UUID");
        assert_eq!(wrong::<Uuid>(json!(7)), "field must be an id: a UUID");
        assert_eq!(wrong::<Word>(json!("three")), "field must be one of one, two");
        assert_eq!(said("field", "alias is too long"), "alias is too long");
    }
}
