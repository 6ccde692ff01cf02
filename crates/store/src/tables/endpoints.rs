//! Endpoints: the named phones of an account.

use crate::error::{StoreError, failed};
use crate::rows::endpoint::{Endpoint, EndpointChange, EndpointWrite};
use crate::rows::user::User;
use crate::scope::{Scope, push_scope};
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool, QueryBuilder, Row};
use crate::write::Write;
use model::{AppId, AuthId, EndpointId, EndpointName, Timestamp};

/// Handle to the endpoints. See [`Store::endpoints`](crate::Store::endpoints).
#[derive(Clone, Copy, Debug)]
pub struct Endpoints<'a>(pub(crate) &'a Shared);

impl Endpoints<'_> {
    async fn write(self, write: EndpointWrite) -> Result<bool, StoreError> {
        self.0.queue.change(|sender| Write::Endpoint(Box::new(write), sender)).await
    }

    /// Returns an endpoint, or `None` if the scope has no such endpoint.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, scope: &Scope, id: &EndpointId) -> Result<Option<Endpoint>, StoreError> {
        one(&self.0.read, scope, id).await
    }

    /// Returns the endpoint of any account with this name. For the sign-in of phones.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn by_name(self, name: &EndpointName) -> Result<Option<Endpoint>, StoreError> {
        named(&self.0.read, name).await
    }

    /// Returns the user's own endpoint. See [`Endpoint::is_of`].
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn of_user(self, user: &User) -> Result<Option<Endpoint>, StoreError> {
        crate::tables::endpoints::of_user(&self.0.read, user).await
    }

    /// Returns endpoints of the scope, newest first, and their total number.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Endpoint>, u64), StoreError> {
        list(&self.0.read, scope, limit, offset).await
    }

    /// Returns the endpoints of the scope that have this application.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn of_application(
        self,
        scope: &Scope,
        id: &AppId,
    ) -> Result<Vec<Endpoint>, StoreError> {
        let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM endpoints"));
        with_application(&mut select, scope, id);
        let rows = select.build().fetch_all(&self.0.read).await;
        let rows = rows.map_err(failed("read the endpoints of an application"))?;
        rows.iter().map(endpoint).collect()
    }

    /// Creates an endpoint. Returns `false` if its name or id is taken. It is on disk when this
    /// returns.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn create(self, endpoint: Endpoint) -> Result<bool, StoreError> {
        self.write(EndpointWrite::Create(endpoint)).await
    }

    /// Changes an endpoint. Returns `false` if the scope has no such endpoint.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn change(
        self,
        scope: &Scope,
        id: &EndpointId,
        change: EndpointChange,
    ) -> Result<bool, StoreError> {
        self.write(EndpointWrite::Change(scope.clone(), id.clone(), change)).await
    }

    /// Deletes an endpoint. Returns `false` if the scope has no such endpoint.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete(self, scope: &Scope, id: &EndpointId) -> Result<bool, StoreError> {
        self.write(EndpointWrite::Delete(scope.clone(), id.clone())).await
    }

    /// Gives the endpoints of the scope with the application `from` the application `to`, or none.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn move_all(
        self,
        scope: &Scope,
        from: &AppId,
        to: Option<AppId>,
    ) -> Result<(), StoreError> {
        let (scope, from) = (scope.clone(), from.clone());
        self.write(EndpointWrite::Move { scope, from, to }).await.map(drop)
    }

    /// Deletes the endpoints of the scope with this application.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete_all(self, scope: &Scope, of: &AppId) -> Result<(), StoreError> {
        self.write(EndpointWrite::DeleteOf(scope.clone(), of.clone())).await.map(drop)
    }

    /// Gives the endpoints of a deleted subaccount to its main account. They belong to no user
    /// then.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn inherit(self, from: &AuthId, main_account: &AuthId) -> Result<(), StoreError> {
        let (from, main_account) = (from.clone(), main_account.clone());
        self.write(EndpointWrite::Inherit { from, main_account }).await.map(drop)
    }

    /// Deletes the endpoints of a subaccount.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn delete_all_of_account(self, of: &AuthId) -> Result<(), StoreError> {
        self.write(EndpointWrite::DeleteOfAccount(of.clone())).await.map(drop)
    }
}

const COLUMNS: &str =
    "endpoint_id, auth_id, main_auth_id, username, alias, password, app_id, user_id, created_us";

/// Executes the write. Returns whether anything has changed.
pub(crate) async fn write(to: &mut Conn, write: &EndpointWrite) -> Result<bool, sqlx::Error> {
    let done = match write {
        EndpointWrite::Create(endpoint) => {
            let insert = "INSERT INTO endpoints (endpoint_id, auth_id, main_auth_id, username, alias, password, app_id, \
                user_id, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
            let insert = sql::query(insert)
                .bind(endpoint.id.as_str())
                .bind(endpoint.account.as_str())
                .bind(endpoint.main_account.as_str())
                .bind(endpoint.name.as_str());
            let insert = insert
                .bind(&endpoint.alias)
                .bind(&endpoint.password)
                .bind(endpoint.app_id.as_ref().map(AppId::as_str))
                .bind(endpoint.user.map(|id| id.to_string()));
            insert.bind(endpoint.created.micros()).execute(to).await?
        }
        EndpointWrite::Change(scope, id, change) => {
            let mut update = QueryBuilder::new("UPDATE endpoints SET endpoint_id = endpoint_id");
            if let Some(alias) = &change.alias {
                update.push(", alias = ").push_bind(alias);
            }
            if let Some(password) = &change.password {
                update.push(", password = ").push_bind(password);
            }
            if let Some(app_id) = &change.app_id {
                update.push(", app_id = ").push_bind(app_id.as_ref().map(AppId::as_str));
            }
            if let Some(user) = change.user {
                update.push(", user_id = ").push_bind(user.to_string());
            }
            of(&mut update, scope, id);
            update.build().execute(to).await?
        }
        EndpointWrite::Delete(scope, id) => {
            let mut delete = QueryBuilder::new("DELETE FROM endpoints");
            of(&mut delete, scope, id);
            delete.build().execute(to).await?
        }
        EndpointWrite::Move { scope, from, to: other } => {
            let mut update = QueryBuilder::new("UPDATE endpoints SET app_id = ");
            update.push_bind(other.as_ref().map(AppId::as_str));
            with_application(&mut update, scope, from);
            update.build().execute(to).await?
        }
        EndpointWrite::DeleteOf(scope, id) => {
            let mut delete = QueryBuilder::new("DELETE FROM endpoints");
            with_application(&mut delete, scope, id);
            delete.build().execute(to).await?
        }
        EndpointWrite::Inherit { from, main_account } => {
            let update = "UPDATE endpoints SET auth_id = $1, main_auth_id = $1, user_id = NULL WHERE auth_id = $2";
            let update = sql::query(update).bind(main_account.as_str()).bind(from.as_str());
            update.execute(to).await?
        }
        EndpointWrite::DeleteOfAccount(account) => {
            let delete = sql::query("DELETE FROM endpoints WHERE auth_id = $1");
            delete.bind(account.as_str()).execute(to).await?
        }
    };
    Ok(done.rows_affected() > 0)
}

fn of(query: &mut QueryBuilder, scope: &Scope, id: &EndpointId) {
    query.push(" WHERE ");
    push_scope(query, scope);
    query.push(" AND endpoint_id = ").push_bind(id.as_str().to_owned());
}

fn with_application(query: &mut QueryBuilder, scope: &Scope, id: &AppId) {
    query.push(" WHERE ");
    push_scope(query, scope);
    query.push(" AND app_id = ").push_bind(id.as_str().to_owned());
}

/// Returns an endpoint of the scope.
pub(crate) async fn one(
    pool: &Pool,
    scope: &Scope,
    id: &EndpointId,
) -> Result<Option<Endpoint>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM endpoints"));
    of(&mut select, scope, id);
    let row = select.build().fetch_optional(pool).await.map_err(failed("read an endpoint"))?;
    row.as_ref().map(endpoint).transpose()
}

/// Returns the endpoint of any account with this name.
pub(crate) async fn named(
    pool: &Pool,
    name: &EndpointName,
) -> Result<Option<Endpoint>, StoreError> {
    let mut select =
        QueryBuilder::new(format!("SELECT {COLUMNS} FROM endpoints WHERE username = "));
    select.push_bind(name.as_str().to_owned());
    let row = select.build().fetch_optional(pool).await.map_err(failed("read an endpoint"))?;
    row.as_ref().map(endpoint).transpose()
}

/// Returns the oldest endpoint that the user created for themselves, or else the one without a user
/// that has their sign-in name.
pub(crate) async fn of_user(pool: &Pool, user: &User) -> Result<Option<Endpoint>, StoreError> {
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM endpoints WHERE "));
    push_scope(&mut select, &Scope::of(user.account.clone()));
    select.push(" AND (user_id = ").push_bind(user.id.to_string());
    select.push(" OR user_id IS NULL AND username = ").push_bind(user.name.clone());
    select.push(") ORDER BY user_id IS NULL, created_us, endpoint_id LIMIT 1");
    let row = select.build().fetch_optional(pool).await.map_err(failed("read an endpoint"))?;
    row.as_ref().map(endpoint).transpose()
}

/// Returns endpoints of the scope, newest first, and their total number.
pub(crate) async fn list(
    pool: &Pool,
    scope: &Scope,
    limit: u32,
    offset: u64,
) -> Result<(Vec<Endpoint>, u64), StoreError> {
    let mut count = QueryBuilder::new("SELECT count(*) FROM endpoints WHERE ");
    push_scope(&mut count, scope);
    let total: i64 =
        count.build_query_scalar().fetch_one(pool).await.map_err(failed("count the endpoints"))?;
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM endpoints WHERE "));
    push_scope(&mut select, scope);
    select.push(" ORDER BY created_us DESC, endpoint_id LIMIT ").push_bind(limit);
    select.push(" OFFSET ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
    let rows = select.build().fetch_all(pool).await.map_err(failed("list the endpoints"))?;
    let endpoints = rows.iter().map(endpoint).collect::<Result<_, _>>()?;
    Ok((endpoints, u64::try_from(total).unwrap_or_default()))
}

fn endpoint(row: &Row) -> Result<Endpoint, StoreError> {
    let what = "read an endpoint";
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(what));
    let created: i64 = row.try_get("created_us").map_err(failed(what))?;
    Ok(Endpoint {
        id: text("endpoint_id")?.into(),
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        name: EndpointName::parse(&text("username")?)
            .map_err(|detail| StoreError::Unreadable { what, detail })?,
        alias: text("alias")?,
        password: text("password")?,
        app_id: row.try_get::<Option<String>, _>("app_id").map_err(failed(what))?.map(AppId::from),
        user: row
            .try_get::<Option<String>, _>("user_id")
            .map_err(failed(what))?
            .map(|id| id.parse())
            .transpose()
            .map_err(|e: uuid::Error| StoreError::Unreadable { what, detail: e.to_string() })?,
        created: Timestamp::from_micros(created),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    fn named(id: &str, name: &str, account: &str, main: &str) -> Endpoint {
        Endpoint {
            id: id.into(),
            account: account.into(),
            main_account: main.into(),
            name: EndpointName::parse(name).unwrap(),
            alias: "A phone".to_owned(),
            password: "hash".to_owned(),
            app_id: None,
            user: None,
            created: Timestamp::from_secs(id.parse().unwrap()),
        }
    }

    #[tokio::test]
    async fn r16_endpoints_are_created_listed_changed_and_deleted_within_their_account() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let [main, sub, other] = ["MA1", "SA1", "MA2"].map(|id| Scope::of(id.into()));
        assert!(store.endpoints().create(named("1", "asha", "MA1", "MA1")).await.unwrap());
        assert!(store.endpoints().create(named("2", "ravi", "SA1", "MA1")).await.unwrap());
        assert!(
            !store.endpoints().create(named("3", "asha", "MA2", "MA2")).await.unwrap(),
            "the name is taken"
        );
        assert!(
            !store.endpoints().create(named("2", "new", "MA2", "MA2")).await.unwrap(),
            "the id is taken"
        );
        let names = async |scope: &Scope, limit, offset| {
            let (list, total) = store.endpoints().list(scope, limit, offset).await.unwrap();
            (list.iter().map(|e| e.name.to_string()).collect::<Vec<_>>(), total)
        };
        assert_eq!(names(&main, 20, 0).await, (vec!["ravi".to_owned(), "asha".to_owned()], 2));
        assert_eq!(names(&main, 1, 1).await, (vec!["asha".to_owned()], 2));
        assert_eq!(names(&sub, 20, 0).await, (vec!["ravi".to_owned()], 1));
        assert_eq!(names(&other, 20, 0).await, (Vec::new(), 0));
        let first: EndpointId = "1".into();
        for scope in [&sub, &other] {
            assert_eq!(store.endpoints().get(scope, &first).await.unwrap(), None);
            assert!(
                !store.endpoints().change(scope, &first, EndpointChange::default()).await.unwrap()
            );
            assert!(!store.endpoints().delete(scope, &first).await.unwrap());
        }
        let change = EndpointChange {
            alias: Some("B".to_owned()),
            app_id: Some(Some("7".into())),
            password: None,
            ..EndpointChange::default()
        };
        assert!(store.endpoints().change(&main, &first, change).await.unwrap());
        let changed = store.endpoints().get(&main, &first).await.unwrap().unwrap();
        assert_eq!(
            (
                changed.alias.as_str(),
                changed.app_id.as_ref().map(AppId::as_str),
                changed.password.as_str()
            ),
            ("B", Some("7"), "hash")
        );
        let change = EndpointChange {
            app_id: Some(None),
            password: Some("other".to_owned()),
            ..EndpointChange::default()
        };
        assert!(store.endpoints().change(&main, &first, change).await.unwrap());
        let changed = store.endpoints().by_name(&changed.name).await.unwrap().unwrap();
        assert_eq!(
            (
                changed.alias.as_str(),
                changed.app_id.as_ref().map(AppId::as_str),
                changed.password.as_str()
            ),
            ("B", None, "other")
        );
        assert!(!format!("{changed:?}").contains("other"), "Debug omits the hash");
        let of = async |scope: &Scope, app: &str| {
            let found = store.endpoints().of_application(scope, &app.into()).await.unwrap();
            found.iter().map(|endpoint| endpoint.id.to_string()).collect::<Vec<_>>()
        };
        for id in ["1", "2"] {
            let change =
                EndpointChange { app_id: Some(Some("8".into())), ..EndpointChange::default() };
            assert!(store.endpoints().change(&main, &id.into(), change).await.unwrap());
        }
        assert_eq!((of(&sub, "8").await, of(&other, "8").await), (vec!["2".to_owned()], vec![]));
        store.endpoints().move_all(&sub, &"8".into(), Some("9".into())).await.unwrap();
        store.endpoints().move_all(&other, &"8".into(), None).await.unwrap();
        assert_eq!(
            (of(&main, "8").await, of(&main, "9").await),
            (vec!["1".to_owned()], vec!["2".to_owned()])
        );
        store.endpoints().delete_all(&other, &"9".into()).await.unwrap();
        store.endpoints().delete_all(&main, &"9".into()).await.unwrap();
        assert_eq!(names(&main, 20, 0).await, (vec!["asha".to_owned()], 1));
        assert!(store.endpoints().delete(&main, &first).await.unwrap());
        assert_eq!(store.endpoints().by_name(&changed.name).await.unwrap(), None);
        store.close().await;
    }
}
