//! The routes of the Graph API.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};

use super::graph::{BASE, calls};
use super::{messages, numbers, settings, templates, uploads};
use crate::World;

/// Maximum size of a request body.
const BODY_BYTES_MAX: usize = 262_144;

/// Returns the router of the Graph API.
pub(crate) fn router() -> Router<Arc<World>> {
    Router::new()
        .route(&format!("{BASE}/{{phone_number_id}}/calls"), post(calls))
        .route(&format!("{BASE}/{{phone_number_id}}/call_permissions"), get(messages::permissions))
        .route(&format!("{BASE}/{{phone_number_id}}/messages"), post(messages::post))
        .route(
            &format!("{BASE}/{{phone_number_id}}/media"),
            post(uploads::post).layer(DefaultBodyLimit::max(uploads::BODY_BYTES_MAX)),
        )
        .route(
            &format!("{BASE}/{{phone_number_id}}/settings"),
            get(settings::get).post(settings::post),
        )
        .route(&format!("{BASE}/oauth/access_token"), post(numbers::exchange))
        .route(&format!("{BASE}/debug_token"), post(numbers::debug_token))
        .route(&format!("{BASE}/{{phone_number_id}}"), get(numbers::number))
        .route(&format!("{BASE}/{{phone_number_id}}/phone_numbers"), get(numbers::phone_numbers))
        .route(&format!("{BASE}/{{phone_number_id}}/message_templates"), get(templates::list))
        .route(&format!("{BASE}/{{phone_number_id}}/register"), post(numbers::register))
        .route(&format!("{BASE}/{{phone_number_id}}/deregister"), post(numbers::deregister))
        .route(&format!("{BASE}/{{phone_number_id}}/subscribed_apps"), any(numbers::apps))
        .route(&format!("{BASE}/{{phone_number_id}}/subscriptions"), get(numbers::subscriptions))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}
