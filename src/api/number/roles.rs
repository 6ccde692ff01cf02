//! What each role may ask (`number-api.md` §1): an agent reads, converses, marks read and calls; an admin does all but people,
//! keys, tokens and mapping; an owner everything. What no row here names takes an admin, where it only reads an agent.

use http::Method;

use model::Role;

/// Operations that differ from the rule: method, path behind `/api/v1/` (`*`: any part; a last `**`: all that is below), role.
const EXCEPTIONS: &[(&str, &[&str], Role)] = &[
    ("POST", &["xml", "check"], Role::Agent),
    ("POST", &["calls"], Role::Agent),
    ("POST", &["calls", "*", "hangup"], Role::Agent),
    ("POST", &["permissions", "*", "*", "request"], Role::Agent),
    ("POST", &["notifications", "read-all"], Role::Agent),
    ("POST", &["notifications", "*", "read"], Role::Agent),
    ("POST", &["conversations", "*", "messages"], Role::Agent),
    ("POST", &["conversations", "*", "media"], Role::Agent),
    ("POST", &["conversations", "*", "read"], Role::Agent),
    ("POST", &["conversations", "*", "insights"], Role::Agent),
    ("POST", &["conversations", "*", "close"], Role::Agent),
    ("POST", &["conversations", "*", "archive"], Role::Agent),
    ("POST", &["conversations", "*", "reopen"], Role::Agent),
    ("PATCH", &["conversations", "*"], Role::Agent),
    ("POST", &["reload"], Role::Owner),
    ("GET", &["nodes"], Role::Owner),
    ("POST", &["nodes", "**"], Role::Owner),
    // With a token, and whose calls they are.
    ("POST", &["phone-numbers"], Role::Owner),
    ("POST", &["phone-numbers", "signup"], Role::Owner),
    ("PATCH", &["wabas", "*"], Role::Owner),
    ("POST", &["account", "token"], Role::Owner),
    ("DELETE", &["account", "token", "previous"], Role::Owner),
    ("GET", &["users", "**"], Role::Owner),
    ("POST", &["users", "**"], Role::Owner),
    ("PATCH", &["users", "**"], Role::Owner),
    ("DELETE", &["users", "**"], Role::Owner),
    ("GET", &["api-keys", "**"], Role::Owner),
    ("POST", &["api-keys", "**"], Role::Owner),
    ("PATCH", &["api-keys", "**"], Role::Owner),
    ("DELETE", &["api-keys", "**"], Role::Owner),
];

/// The least role that may ask this.
pub(in crate::api) fn least(method: &Method, path: &[String]) -> Role {
    let named =
        EXCEPTIONS.iter().find(|(verb, parts, _)| *verb == method.as_str() && is_at(parts, path));
    match named {
        Some((_, _, role)) => *role,
        None if *method == Method::GET || *method == Method::HEAD => Role::Agent,
        None => Role::Admin,
    }
}

fn is_at(parts: &[&str], path: &[String]) -> bool {
    match parts.split_last() {
        Some((&"**", above)) => {
            path.len() >= above.len() && is_at(above, path.get(..above.len()).unwrap_or_default())
        }
        _ => {
            parts.len() == path.len()
                && parts.iter().zip(path).all(|(want, have)| *want == "*" || want == have)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_what() {
        let least = |method: Method, path: &str| {
            let path: Vec<String> = path.split('/').map(str::to_owned).collect();
            super::least(&method, &path)
        };
        assert_eq!(least(Method::GET, "calls"), Role::Agent);
        assert_eq!(least(Method::POST, "xml/check"), Role::Agent);
        assert_eq!(least(Method::POST, "permissions/91/92/request"), Role::Agent);
        assert_eq!(least(Method::POST, "reload"), Role::Owner);
        assert_eq!(least(Method::GET, "nodes"), Role::Owner);
        assert_eq!(least(Method::POST, "nodes/n1/drain"), Role::Owner);
        assert_eq!(
            least(Method::PATCH, "anything/new"),
            Role::Admin,
            "what is forgotten here is not open to all"
        );
        let path: Vec<String> = ["users", "7"].map(str::to_owned).into();
        assert!(
            is_at(&["users", "**"], &path)
                && is_at(&["users", "**"], &path[..1])
                && !is_at(&["users"], &path)
        );
    }
}
