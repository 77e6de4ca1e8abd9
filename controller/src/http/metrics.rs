//! tmp
use super::web::Web;
use axum::Router;
use std::sync::Arc;
pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
}
