//! Users and sessions with a real store and a stepped clock.

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::openid::Claims;
use model::Health;

const HOUR: Duration = Duration::from_secs(3600);

struct World {
    people: People,
    store: Store,
    clock: Clock,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
    let clock = Clock::stepped(Timestamp::from_secs(1_795_000_000));
    let failures = Failures::new(None, Duration::ZERO);
    let people =
        People::new(store.clone(), Passwords::default(), clock.clone(), Feed::new(), failures);
    World { people, store, clock, _folder: folder }
}

fn configured(name: &str, password: &str, role: Role) -> UserSettings {
    UserSettings {
        name: name.to_owned(),
        password: Secret::new(password),
        account: "MA1".into(),
        role,
    }
}

fn new(name: &str, account: &str) -> NewUser {
    NewUser {
        account: account.into(),
        main_account: account.into(),
        name: name.to_owned(),
        full_name: String::new(),
        role: Role::Agent,
        wa_id: None,
        password: None,
    }
}

fn here() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

impl World {
    async fn sign_in(&self, name: &str, password: &str) -> Result<Token, SignInError> {
        self.sign_in_to(None, name, password).await
    }

    async fn sign_in_to(
        &self,
        account: Option<&AuthId>,
        name: &str,
        password: &str,
    ) -> Result<Token, SignInError> {
        let credentials =
            Credentials { account, name, password: Secret::new(password), several_accounts: true };
        self.people.sign_in(credentials, here(), None).await.map(|signed_in| signed_in.token)
    }

    async fn knows(&self, token: &Token) -> bool {
        self.people.who(token).await.unwrap().is_some()
    }
}

/// The configuration sets the password of an existing user. When it no longer names the user, the
/// user and the password remain.
#[tokio::test]
async fn a_user_who_existed_before_the_file_named_it_stays_without_the_entry() {
    let w = world().await;
    let (user, _) = w.people.make_user(new("asha", "MA1")).await.unwrap();
    let listed = [
        configured("asha", "from the file", Role::Admin),
        configured("ravi", "from the file", Role::Admin),
    ];
    w.people.sync_configured(&listed, Clone::clone).await.unwrap();
    w.people.sync_configured(&listed, Clone::clone).await.unwrap();
    w.people.sync_configured(&[], Clone::clone).await.unwrap();
    let token = w.sign_in("asha", "from the file").await.unwrap();
    let person = w.people.who(&token).await.unwrap().unwrap();
    assert_eq!(
        (person.user.id, person.user.role, person.user.in_file),
        (user.id, Role::Admin, false)
    );
    assert!(matches!(w.sign_in("ravi", "from the file").await, Err(SignInError::Unknown)));
}

#[tokio::test]
async fn r20_a_session_ends_when_idle_too_old_or_its_password_changes() {
    let w = world().await;
    w.people
        .sync_configured(&[configured("asha", "a long secret", Role::Owner)], Clone::clone)
        .await
        .unwrap();
    assert!(matches!(w.sign_in("asha", "wrong").await, Err(SignInError::Unknown)));
    assert!(matches!(w.sign_in("nobody", "wrong").await, Err(SignInError::Unknown)));
    let first = w.sign_in("asha", "a long secret").await.unwrap();
    let person = w.people.who(&first).await.unwrap().unwrap();
    assert_eq!((person.user.role, person.scope().auth_id().as_str()), (Role::Owner, "MA1"));
    assert!(person.csrf != first.reveal() && person.csrf.len() == 43);
    assert!(!format!("{first:?} {person:?}").contains(first.reveal()), "r22");
    let second = w.sign_in("asha", "a long secret").await.unwrap();
    w.clock.step(HOUR * 11);
    assert!(w.knows(&first).await, "in use");
    while w.people.0.store.sessions().get(&first.digest()).await.unwrap().unwrap().0.seen
        < w.clock.wall()
    {
        tokio::task::yield_now().await;
    }
    w.clock.step(HOUR * 2);
    assert!(w.knows(&first).await && !w.knows(&second).await, "12 h idle");
    // The same configuration changes nothing. Another password ends the sessions that began with
    // the old one.
    w.people
        .sync_configured(&[configured("asha", "a long secret", Role::Admin)], Clone::clone)
        .await
        .unwrap();
    assert_eq!(w.people.who(&first).await.unwrap().unwrap().user.role, Role::Admin);
    w.people
        .sync_configured(&[configured("asha", "another secret", Role::Admin)], Clone::clone)
        .await
        .unwrap();
    assert!(!w.knows(&first).await);
    let third = w.sign_in("asha", "another secret").await.unwrap();
    w.people.sign_out(&third).await.unwrap();
    assert!(!w.knows(&third).await, "ended by signing out");
    let [one, two] = [
        w.sign_in("asha", "another secret").await.unwrap(),
        w.sign_in("asha", "another secret").await.unwrap(),
    ];
    w.people.sign_out_everywhere(person.user.id).await.unwrap();
    assert!(!w.knows(&one).await && !w.knows(&two).await);
    let last = w.sign_in("asha", "another secret").await.unwrap();
    w.people.sync_configured(&[], Clone::clone).await.unwrap();
    assert!(!w.knows(&last).await, "not in the file any more");
    assert!(matches!(w.sign_in("asha", "another secret").await, Err(SignInError::Unknown)));
    w.people.tidy().await;
}

#[tokio::test]
async fn r15_a_right_password_is_accepted_after_wrong_ones_from_the_same_address() {
    let w = world().await;
    w.people
        .sync_configured(&[configured("asha", "a long secret", Role::Owner)], Clone::clone)
        .await
        .unwrap();
    for name in ["asha", "unknown"] {
        for n in 0..20 {
            let again = w.sign_in(name, "old secret").await;
            assert_eq!(matches!(again, Err(SignInError::Wait(_))), n >= 10, "{n}: {again:?}");
        }
        for n in 1..10 {
            let guess = w.sign_in(name, &format!("guess {n}")).await;
            assert!(matches!(guess, Err(SignInError::Wait(_))), "{n}: {guess:?}");
        }
    }
    w.sign_in("asha", "a long secret").await.unwrap();
    for n in 0..20 {
        let guess = w.sign_in("asha", &format!("guess {n} of another")).await;
        assert_eq!(matches!(guess, Err(SignInError::Wait(_))), n >= 10, "{n}: {guess:?}");
    }
    let busy = w.sign_in("asha", "a long secret").await;
    assert!(matches!(busy, Err(SignInError::Wait(_))), "a guess was just checked: {busy:?}");
    let there = "198.51.100.1".parse().unwrap();
    let password = Secret::new("a long secret");
    let credentials =
        Credentials { account: None, name: "asha", password, several_accounts: false };
    w.people.sign_in(credentials, there, None).await.expect("other addresses are not affected");
    w.clock.step(Duration::from_secs(6));
    w.sign_in("asha", "a long secret").await.unwrap();
}

/// A user of another account with the same name gets no further guesses by signing in, in its own
/// account or without naming one.
#[tokio::test]
async fn r15_a_sign_in_does_not_forget_the_failures_of_a_namesake() {
    let w = world().await;
    let mut namesake = configured("asha", "another secret", Role::Owner);
    namesake.account = "MA2".into();
    let users = [configured("asha", "a long secret", Role::Owner), namesake];
    w.people.sync_configured(&users, Clone::clone).await.unwrap();
    let (victim, own) = (AuthId::from("MA1"), AuthId::from("MA2"));
    let credentials = |account, password| Credentials {
        account,
        name: "asha",
        password: Secret::new(password),
        several_accounts: true,
    };
    let signed_in = w.people.sign_in(credentials(Some(&own), "another secret"), here(), None).await;
    let signed_in = signed_in.unwrap();
    let browser = w.people.browser(signed_in.user, None).unwrap();
    let guesses: Vec<String> = (0..40).map(|n| format!("guess {n}")).collect();
    let guess = async |account, password| {
        w.people.sign_in(credentials(account, password), here(), Some(&browser)).await
    };
    let mut compared = 0;
    for (n, wrong) in guesses.iter().enumerate() {
        match guess(Some(&victim), wrong).await {
            Err(SignInError::Unknown) => compared += 1,
            Err(SignInError::Wait(_)) => {}
            other => panic!("{other:?}"),
        }
        let account = Some(&own).filter(|_| n % 2 == 0);
        assert_eq!(guess(account, "another secret").await.unwrap().user, signed_in.user);
    }
    assert!(compared <= 10, "{compared} guesses");
    let right = guess(Some(&victim), "a long secret").await;
    assert!(matches!(right, Err(SignInError::Wait(_))), "{right:?}");
}

/// Neither the limits nor the number of checks show whether other accounts have a user of the name.
#[tokio::test]
async fn r15_a_sign_in_without_an_account_does_not_show_whether_its_name_is_shared() {
    let w = world().await;
    let in_account = |account: &str| UserSettings {
        account: account.into(),
        ..configured("asha", &format!("secret of {account}"), Role::Owner)
    };
    let own = AuthId::from("MA2");
    let credentials = |account, password: &str| Credentials {
        account,
        name: "asha",
        password: Secret::new(password),
        several_accounts: true,
    };
    for others in [vec!["MA1"], vec![]] {
        let mut users: Vec<_> = others.iter().map(|account| in_account(account)).collect();
        users.push(in_account("MA2"));
        w.people.sync_configured(&users, Clone::clone).await.unwrap();
        w.clock.step(HOUR);
        for n in 0..20 {
            let guess = format!("guess {n}");
            let _ = w.people.sign_in(credentials(Some(&own), &guess), here(), None).await;
        }
        let checks = w.people.0.passwords.computed();
        for n in 0..10 {
            let guess = format!("another {n}");
            let refused = w.people.sign_in(credentials(None, &guess), here(), None).await;
            assert!(matches!(refused, Err(SignInError::Unknown)), "{others:?} {n}: {refused:?}");
        }
        // Three candidates besides the own user, whose reserve is used up.
        assert_eq!(w.people.0.passwords.computed() - checks, 30, "{others:?}");
        w.clock.step(HOUR);
        let checks = w.people.0.passwords.computed();
        w.people.sign_in(credentials(None, "secret of MA2"), here(), None).await.unwrap();
        assert_eq!(w.people.0.passwords.computed() - checks, 4, "{others:?}");
        w.people.sign_in(credentials(Some(&own), "secret of MA2"), here(), None).await.unwrap();
        assert_eq!(w.people.0.passwords.computed() - checks, 5, "{others:?}");
    }
}

#[tokio::test]
async fn an_invitation_sets_a_password_once() {
    let w = world().await;
    let (user, link) = w.people.make_user(new("ravi", "MA1")).await.unwrap();
    let link = link.unwrap();
    assert!(matches!(w.sign_in("ravi", "").await, Err(SignInError::Unknown)), "no password yet");
    assert!(matches!(
        w.people.make_user(new("ravi", "MA1")).await,
        Err(PeopleError::Conflict("name_taken", _))
    ));
    assert_eq!(w.people.invited(&link).await.unwrap().unwrap().id, user.id);
    assert!(matches!(
        w.people.accept(&link, Secret::new("short")).await,
        Err(PeopleError::Bad("password", _))
    ));
    w.people.accept(&link, Secret::new("long enough")).await.unwrap();
    assert!(
        matches!(
            w.people.accept(&link, Secret::new("long enough")).await,
            Err(PeopleError::Missing)
        ),
        "once"
    );
    let session = w.sign_in("ravi", "long enough").await.unwrap();
    let scope = Scope::of("MA1".into());
    let (_, link) = w.people.invite(&scope, user.id).await.unwrap();
    w.clock.step(INVITED_FOR);
    assert!(w.people.invited(&link).await.unwrap().is_none(), "too old");
    assert!(!w.knows(&session).await, "seven days at most");
    let other = Scope::of("MA2".into());
    assert!(matches!(w.people.invite(&other, user.id).await, Err(PeopleError::Missing)));
}

#[tokio::test]
async fn r20_a_new_password_stops_sign_ins_in_progress_and_links() {
    let w = world().await;
    let (user, link) = w.people.make_user(new("ravi", "MA1")).await.unwrap();
    w.people.accept(&link.unwrap(), Secret::new("long enough")).await.unwrap();
    let scope = Scope::of("MA1".into());
    let (_, link) = w.people.invite(&scope, user.id).await.unwrap();
    let verified = w.store.people().get(&scope, user.id).await.unwrap().unwrap().password;
    assert!(verified.is_some());
    let change = Change { password: Some(Secret::new("another one")), ..Change::default() };
    w.people.change(&scope, user.id, None, change).await.unwrap();
    assert!(w.people.invited(&link).await.unwrap().is_none());
    let (token, at) = (Token::fresh(), w.clock.wall());
    let session = Session { digest: token.digest(), user: user.id, begun: at, seen: at };
    assert!(!w.store.sessions().begin(session.clone(), verified).await.unwrap());
    assert!(!w.knows(&token).await);
    w.store.people().delete(&scope, user.id).await.unwrap();
    assert!(!w.store.sessions().begin(session, None).await.unwrap(), "there is no such user");
}

#[tokio::test]
async fn r20_an_expired_session_differs_from_an_ended_one_for_a_day() {
    let w = world().await;
    let (_, link) = w.people.make_user(new("ravi", "MA1")).await.unwrap();
    w.people.accept(&link.unwrap(), Secret::new("long enough")).await.unwrap();
    let [expires, ends] = [0, 1].map(|_| w.sign_in("ravi", "long enough"));
    let (expires, ends) = (expires.await.unwrap(), ends.await.unwrap());
    w.people.sign_out(&ends).await.unwrap();
    assert!(matches!(w.people.session(&ends).await.unwrap(), SessionState::Ended));
    w.clock.step(IDLE);
    w.people.tidy().await;
    assert!(matches!(w.people.session(&expires).await.unwrap(), SessionState::Expired(_)));
    assert!(!w.knows(&expires).await);
    w.clock.step(EXPIRED_KEPT + Duration::from_secs(1));
    w.people.tidy().await;
    assert!(matches!(w.people.session(&expires).await.unwrap(), SessionState::Ended));
}

#[tokio::test]
async fn r16_users_and_keys_belong_to_their_account() {
    let w = world().await;
    w.people
        .sync_configured(&[configured("asha", "a long secret", Role::Owner)], Clone::clone)
        .await
        .unwrap();
    let (user, _) = w.people.make_user(new("ravi", "MA1")).await.unwrap();
    let [own, other] = ["MA1", "MA2"].map(|id| Scope::of(id.into()));
    assert_eq!(w.people.users(&own, None, 50).await.unwrap().len(), 2);
    assert!(w.people.users(&other, None, 50).await.unwrap().is_empty());
    let change = Change {
        role: Some(Role::Admin),
        wa_id: Some(Some("+919812345678".into())),
        ..Change::default()
    };
    assert!(matches!(
        w.people.change(&other, user.id, None, change.clone()).await,
        Err(PeopleError::Missing)
    ));
    let changed = w.people.change(&own, user.id, None, change).await.unwrap();
    assert_eq!((changed.role, changed.wa_id.as_deref()), (Role::Admin, Some("919812345678")));
    let own_role = Change { role: Some(Role::Owner), ..Change::default() };
    let refused = w.people.change(&own, user.id, Some(user.id), own_role.clone()).await;
    assert!(matches!(refused, Err(PeopleError::Conflict("own_role", _))));
    let asha = w.people.0.store.people().by_name(None, "asha").await.unwrap().pop().unwrap();
    let less = Change { role: Some(Role::Agent), ..Change::default() };
    assert!(matches!(
        w.people.change(&own, asha.id, None, less).await,
        Err(PeopleError::Conflict("in_configuration", _))
    ));
    assert!(matches!(
        w.people.remove(&own, user.id, Some(user.id)).await,
        Err(PeopleError::Conflict("oneself", _))
    ));
    assert!(matches!(w.people.remove(&other, user.id, None).await, Err(PeopleError::Missing)));
    w.people.remove(&own, user.id, Some(asha.id)).await.unwrap();

    let account: AuthId = "MA1".into();
    let made = w.people.make_key((account.clone(), account.clone()), "ci", Role::Agent, None).await;
    let (key, secret) = made.unwrap();
    assert_eq!(w.people.key(secret.reveal()).map(|k| (k.role, k.id)), Some((Role::Agent, key.id)));
    assert!(secret.reveal().ends_with(&key.ending) && w.people.key("no key").is_none());
    assert!(w.people.keys(&other, None, 50).await.unwrap().is_empty());
    assert!(matches!(w.people.remove_key(&other, key.id).await, Err(PeopleError::Missing)));
    w.people.remove_key(&own, key.id).await.unwrap();
    assert!(w.people.key(secret.reveal()).is_none(), "revoked");
}

#[tokio::test]
async fn r15_revoking_a_key_survives_cancellation_and_concurrent_reads() {
    let w = world().await;
    let (own, account): (Scope, AuthId) = (Scope::of("MA1".into()), "MA1".into());
    let make = || w.people.make_key((account.clone(), account.clone()), "ci", Role::Agent, None);
    let (key, secret) = make().await.unwrap();
    {
        // The client disconnects after the removal has begun.
        let removing = w.people.remove_key(&own, key.id);
        tokio::pin!(removing);
        assert!(futures_util::poll!(removing.as_mut()).is_pending());
    }
    // The keys are read concurrently.
    let (others, ..) = tokio::join!(make(), make(), make(), w.people.load());
    others.unwrap();
    while w.people.key(secret.reveal()).is_some() {
        tokio::task::yield_now().await;
    }
    w.people.load().await.unwrap();
    assert!(w.people.key(secret.reveal()).is_none());
}

#[tokio::test]
async fn rejects_a_change_of_an_outdated_user() {
    let w = world().await;
    let (user, _) = w.people.make_user(new("ravi", "MA1")).await.unwrap();
    let own = Scope::of("MA1".into());
    let named = |name: &str, seen: &User| Change {
        full_name: Some(name.to_owned()),
        seen: Some(Box::new(seen.clone())),
        ..Change::default()
    };
    let first = w.people.change(&own, user.id, None, named("Ravi", &user)).await.unwrap();
    let late = w.people.change(&own, user.id, None, named("Ravindra", &user)).await;
    assert!(matches!(late, Err(PeopleError::Changed)), "{late:?}");
    assert_eq!(
        w.people.change(&own, user.id, None, named("Ravindra", &first)).await.unwrap().full_name,
        "Ravindra"
    );
}

#[tokio::test]
async fn rejects_names_that_look_alike() {
    let w = world().await;
    w.people.make_user(new("asha", "MA1")).await.unwrap();
    for name in ["ASHA", "asha"] {
        let made = w.people.make_user(new(name, "MA1")).await;
        assert!(matches!(made, Err(PeopleError::Conflict("name_taken", _))), "{name}");
    }
    for name in ["asha\u{200b}", "\u{202e}ahsa"] {
        let made = w.people.make_user(new(name, "MA1")).await;
        assert!(matches!(made, Err(PeopleError::Bad("name", _))), "{name:?}");
    }
    w.people.make_user(new("ashar", "MA1")).await.unwrap();
}

#[tokio::test]
async fn accounts_have_users_of_the_same_name() {
    let w = world().await;
    let with_password = |account: &str, password: &str| NewUser {
        password: Some(Secret::new(password)),
        ..new("asha", account)
    };
    let (first, _) = w.people.make_user(with_password("MA1", "secret of the first")).await.unwrap();
    w.clock.step(HOUR);
    let (second, _) =
        w.people.make_user(with_password("MA2", "secret of the second")).await.unwrap();
    let (one, two): (AuthId, AuthId) = ("MA1".into(), "MA2".into());
    let who = async |account: Option<&AuthId>, password: &str| match w
        .sign_in_to(account, "asha", password)
        .await
    {
        Ok(token) => Some(w.people.who(&token).await.unwrap().unwrap().user.id),
        Err(SignInError::Unknown) => None,
        Err(error) => panic!("{error}"),
    };
    // The password decides if no account is given.
    for (account, password, expected) in [
        (None, "secret of the first", Some(first.id)),
        (None, "secret of the second", Some(second.id)),
        (None, "secret of neither", None),
        (Some(&two), "secret of the second", Some(second.id)),
        (Some(&two), "secret of the first", None),
        (Some(&one), "secret of the second", None),
    ] {
        assert_eq!(who(account, password).await, expected, "{account:?} {password}");
    }
}

/// The person of these claims is recognized among the users of the provider's account only.
#[tokio::test]
async fn another_account_cannot_receive_a_person_of_the_provider() {
    let w = world().await;
    let claims = Claims {
        issuer: "https://login.example.com".to_owned(),
        subject: "7".to_owned(),
        email: Some("ceo@tenant-a.example".to_owned()),
        is_verified: true,
        name: None,
        role: None,
    };
    let rules = |main_account: &str, newcomers| Rules {
        account: main_account.into(),
        main_account: main_account.into(),
        newcomers,
        domains: &[],
        has_roles: false,
    };
    // Another tenant creates the user first.
    let (trap, _) = w.people.make_user(new("ceo@tenant-a.example", "MA2")).await.unwrap();
    let refused = w.people.sign_in_with(&claims, &rules("MA1", None)).await;
    assert!(matches!(refused, Err(SignInRefusal::Unknown(_))), "{refused:?}");
    let first = w.people.sign_in_with(&claims, &rules("MA1", Some(Role::Agent))).await.unwrap();
    assert!(first.role_before.is_none() && first.is_linked);
    let again = w.people.sign_in_with(&claims, &rules("MA1", None)).await.unwrap();
    assert_eq!((again.role_before, again.is_linked), (Some(Role::Agent), false));
    let person = w.people.who(&first.token).await.unwrap().unwrap();
    assert!(person.user.id != trap.id && person.user.account.as_str() == "MA1");
    // The link stays within the account, too.
    let refused = w.people.sign_in_with(&claims, &rules("MA2", None)).await;
    assert!(matches!(refused, Err(SignInRefusal::Another(_))), "{refused:?}");
}

#[tokio::test]
async fn a_set_up_link_is_for_the_first_owner_and_expires() {
    let w = world().await;
    let account: AuthId = "MA1".into();
    assert!(!w.people.is_set_up_open().await.unwrap());
    let begin = async |node: &str| w.people.begin_set_up(node).await.unwrap();
    let token = begin("n0").await.expect("no owner exists");
    let check = async |token: &str, from| w.people.check_set_up(token, from).await;
    check(token.reveal(), here()).await.unwrap();
    for _ in 0..10 {
        let wrong = Token::fresh();
        assert!(matches!(check(wrong.reveal(), here()).await, Err(SetUpError::Invalid)));
    }
    let wrong = Token::fresh();
    assert!(matches!(check(wrong.reveal(), here()).await, Err(SetUpError::Wait(_))));
    check(token.reveal(), here()).await.expect("wrong links refuse no right one");
    let elsewhere = "198.51.100.7".parse().unwrap();
    w.clock.step(Duration::from_secs(24 * 3_600 - 1));
    check(token.reveal(), elsewhere).await.unwrap();
    w.clock.step(Duration::from_secs(1));
    assert!(matches!(check(token.reveal(), elsewhere).await, Err(SetUpError::Invalid)));

    assert!(!w.people.is_set_up_open().await.unwrap());

    // Each node has a link of its own, which a restart of that node replaces.
    let (old, other) = (begin("n0").await.unwrap(), begin("n1").await.unwrap());
    let token = begin("n0").await.unwrap();
    assert!(matches!(check(old.reveal(), elsewhere).await, Err(SetUpError::Invalid)));
    check(other.reveal(), elsewhere).await.unwrap();
    assert!(w.people.is_set_up_open().await.unwrap());

    // Other users do not end it, and their invitations do not open it.
    let (ravi, invitation) = w.people.make_user(self::new("ravi", "MA1")).await.unwrap();
    let invitation = invitation.unwrap();
    let opened = check(invitation.reveal(), "198.51.100.8".parse().unwrap()).await;
    assert!(matches!(opened, Err(SetUpError::Invalid)), "{opened:?}");
    assert!(w.people.is_set_up_open().await.unwrap());
    let taken = ("ravi", Secret::new("a long secret"));
    let taken = w.people.set_up((&account, token.reveal()), taken, elsewhere).await;
    assert!(
        matches!(taken, Err(SetUpError::People(PeopleError::Conflict("name_taken", _)))),
        "{taken:?}"
    );

    let new = ("asha", Secret::new("a long secret"));
    let user = w.people.set_up((&account, token.reveal()), new, elsewhere).await.unwrap();
    assert_eq!((user.role, &user.account), (Role::Owner, &account));
    w.sign_in("asha", "a long secret").await.unwrap();
    assert_eq!(w.people.invited(&invitation).await.unwrap().unwrap().id, ravi.id);
    let again = ("lena", Secret::new("a long secret"));
    let again = w.people.set_up((&account, other.reveal()), again, elsewhere).await;
    assert!(matches!(again, Err(SetUpError::Invalid)));
    assert!(begin("n0").await.is_none() && !w.people.is_set_up_open().await.unwrap());
}

#[tokio::test]
async fn the_last_owner_of_an_account_remains() {
    let w = world().await;
    let owner = |name: &str| NewUser { role: Role::Owner, ..new(name, "MA1") };
    let first = w.people.make_user(owner("asha")).await.unwrap().0;
    w.people.make_user(new("ravi", "MA1")).await.unwrap();
    // An owner of a subaccount is not one of the main account.
    let sub = NewUser { account: "SA1".into(), ..owner("eve") };
    w.people.make_user(sub).await.unwrap();
    let scope = Scope::Main("MA1".into());
    let demoted = || Change { role: Some(Role::Admin), ..Change::default() };
    let is_last = |error: PeopleError| matches!(error, PeopleError::Conflict("last_owner", _));
    assert!(is_last(w.people.remove(&scope, first.id, None).await.unwrap_err()));
    assert!(is_last(w.people.change(&scope, first.id, None, demoted()).await.unwrap_err()));
    let second = w.people.make_user(owner("omar")).await.unwrap().0;
    w.people.change(&scope, first.id, None, demoted()).await.unwrap();
    w.people.remove(&scope, first.id, None).await.unwrap();
    // Two owners end each other's ownership at the same time.
    let third = w.people.make_user(owner("lena")).await.unwrap().0;
    let (one, other) = tokio::join!(
        w.people.change(&scope, second.id, Some(third.id), demoted()),
        w.people.remove(&scope, third.id, Some(second.id)),
    );
    let failures: Vec<_> = [one.map(drop), other].into_iter().filter_map(Result::err).collect();
    assert!(failures.len() == 1 && failures.into_iter().all(is_last));
}
