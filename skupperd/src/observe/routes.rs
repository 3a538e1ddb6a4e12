//! What a request for a path is answered with, and which paths its origin may read.

use super::{
    LoopHealth,
    api::{self, ApiResponse, ApiSnapshot},
    attribution::ClientAttribution,
    connections,
    console::{self, ConsoleToken},
    metrics::render,
};
use crate::{
    flows::FlowLog,
    http_server::{HttpResult, refuse_writes, text, with_type},
    steer::{ListBindings, ReadTotals, accel::Acceleration},
    store::ResourceSnapshot,
};
use hyper::{Request, StatusCode, body::Incoming, header::HeaderValue};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Content type of the OpenMetrics specification.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Time for an event loop to answer `/healthz`.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

const KNOWN_PATHS: &str = "no such path; try /metrics, /services, /connections, /requests, /steering, \
    /healthz, and on the local socket / and /api/v2alpha1/\n";
const FORBIDDEN: &str =
    "only root and the daemon's own user may read connections and requests, on the local socket\n";

/// How a request reached the server.
#[derive(Clone)]
pub(super) enum RequestOrigin {
    /// The local socket. `trusted`: by root, or by the user that the daemon runs as.
    Local {
        trusted: bool,
    },
    Metrics,
    Console(ConsoleToken),
}

/// Where the state of steering comes from.
#[derive(Clone)]
pub struct SteeringSource {
    /// Counts connections; `None` when the kernel does not steer.
    pub meter: Option<ReadTotals>,
    /// Lists the bindings.
    pub listing: ListBindings,
}

/// What requests are answered from.
#[derive(Clone)]
pub(super) struct ApiState {
    pub(super) published: watch::Receiver<Arc<ResourceSnapshot>>,
    pub(super) health: LoopHealth,
    pub(super) steering: SteeringSource,
    pub(super) acceleration: Arc<Acceleration>,
    pub(super) flow_log: FlowLog,
    pub(super) attribution: ClientAttribution,
}

/// What the origin of a request may read beside metrics.
struct AccessRights {
    /// Connections, with addresses of clients.
    connections: bool,
    /// The API and the console.
    console: bool,
}

pub(super) async fn respond(
    request: &Request<Incoming>,
    origin: &RequestOrigin,
    state: &ApiState,
) -> HttpResult {
    if let Some(refusal) = refuse_writes(request) {
        return refusal;
    }
    let rights = match rights(request, origin) {
        Ok(rights) => rights,
        Err(refusal) => return text(StatusCode::FORBIDDEN, refusal),
    };
    let mut response = route(request, &rights, state).await?;
    if rights.console {
        // A browser may show the response, and use it for nothing else.
        let headers = console::headers();
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        response.headers_mut().extend(headers);
    }
    Ok(response)
}

/// # Errors
///
/// The text of the refusal.
fn rights<B>(request: &Request<B>, origin: &RequestOrigin) -> Result<AccessRights, &'static str> {
    // A page of another origin whose name resolves to this host would have the rights of its reader.
    let is_own_name = console::is_for_this_host(request);
    match origin {
        RequestOrigin::Local { trusted } => Ok(AccessRights {
            connections: *trusted && is_own_name,
            console: is_own_name,
        }),
        RequestOrigin::Metrics => Ok(AccessRights {
            connections: false,
            console: false,
        }),
        RequestOrigin::Console(_) if !is_own_name => Err(console::FOREIGN_NAME),
        RequestOrigin::Console(token) => {
            // The page itself has no data.
            if request.uri().path() != "/" && !token.is_shown(request.headers()) {
                return Err(console::TOKEN_MISSING);
            }
            Ok(AccessRights {
                connections: true,
                console: true,
            })
        }
    }
}

async fn route(request: &Request<Incoming>, rights: &AccessRights, state: &ApiState) -> HttpResult {
    let query = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/healthz" => health(state).await,
        "/metrics" => metrics(state),
        "/services" => {
            let services = state.flow_log.services();
            let services = services.iter().map(connections::service).collect();
            json(StatusCode::OK, &connections::list(services))
        }
        "/connections" | "/requests" if !rights.connections => {
            text(StatusCode::FORBIDDEN, FORBIDDEN)
        }
        "/connections" => match connections::parse_query(query) {
            Ok(query) => {
                let records = state.flow_log.records(&query);
                let records = connections::connections(&records, &state.attribution);
                json(StatusCode::OK, &connections::list(records))
            }
            Err(reason) => text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
        },
        "/requests" => match connections::parse_query(query) {
            Ok(query) => {
                let records = state.flow_log.requests(&query);
                let records = records.iter().map(connections::request).collect();
                json(StatusCode::OK, &connections::list(records))
            }
            Err(reason) => text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
        },
        "/steering" => match serde_json::to_value((state.steering.listing)()) {
            Ok(listing) => json(StatusCode::OK, &listing),
            Err(_) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cannot encode bindings\n",
            ),
        },
        "/" if rights.console => {
            with_type(StatusCode::OK, "text/html; charset=utf-8", console::page())
        }
        path => match path.strip_prefix(api::ROOT) {
            Some(path) if rights.console => {
                let published = state.published.borrow().clone();
                let snapshot = ApiSnapshot {
                    published: &published,
                    flow_log: &state.flow_log,
                    attribution: &state.attribution,
                    private: !rights.connections,
                };
                api_response(api::answer(path, query, snapshot))
            }
            _ => text(StatusCode::NOT_FOUND, KNOWN_PATHS),
        },
    }
}

async fn health(state: &ApiState) -> HttpResult {
    let silent = state.health.find_silent_threads(HEALTH_TIMEOUT).await;
    if silent.is_empty() {
        return text(StatusCode::OK, "OK\n");
    }
    let silent = format!("no answer: {}\n", silent.join(", "));
    text(StatusCode::SERVICE_UNAVAILABLE, silent)
}

fn metrics(state: &ApiState) -> HttpResult {
    let published = state.published.borrow().clone();
    let totals = state.steering.meter.as_ref().and_then(|meter| meter());
    let hops = state.acceleration.totals();
    let listing = (state.steering.listing)();
    match render(&published, &listing, totals, hops, &state.flow_log) {
        Ok(metrics) => with_type(StatusCode::OK, OPENMETRICS, metrics),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n"),
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> HttpResult {
    with_type(status, "application/json", value.to_string())
}

/// Errors have the form of Skupper's network observer.
fn api_response(response: ApiResponse) -> HttpResult {
    let error = |status: StatusCode, code: &str, message: &str| {
        json(status, &json!({"code": code, "message": message}))
    };
    match response {
        ApiResponse::Found(value) => json(StatusCode::OK, &value),
        ApiResponse::Unknown => error(StatusCode::NOT_FOUND, "ErrNotFound", "no such record"),
        ApiResponse::Gone => error(StatusCode::GONE, "ErrGone", "hosts are not recorded"),
        ApiResponse::Bad(reason) => error(StatusCode::BAD_REQUEST, "ErrBadRequest", &reason),
        ApiResponse::Private => text(StatusCode::FORBIDDEN, FORBIDDEN),
    }
}
