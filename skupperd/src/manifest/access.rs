//! Grants and tokens: raw fields to validated resources.

use super::{
    checks::{CheckResult, Problem, field, link_cost, optional, required},
    raw,
};
use crate::model::{AccessGrant, AccessToken, Code, Spec, parse_duration};
use std::time::Duration;

/// Default validity of a grant, as in the guides of Skupper.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Longest code.
const MAX_CODE: usize = 1024;

pub(super) fn grant(spec: raw::AccessGrant) -> CheckResult<Spec> {
    // 0 is the unset value in resources of Skupper.
    let allowed = match spec.redemptions_allowed.unwrap_or(0) {
        0 => 1,
        n => u32::try_from(n).map_err(|_| {
            let text = format!("{n} is not a number of redemptions (1..{})", u32::MAX);
            field("spec.redemptionsAllowed", text)
        })?,
    };
    let window = spec.expiration_window.filter(|text| !text.is_empty());
    let window = match window {
        None => WINDOW,
        Some(text) => parse_duration(&text)
            .filter(|window| !window.is_zero())
            .ok_or_else(|| {
                let text = format!("{:?} is not a duration such as 15m or 1h30m", text.0);
                field("spec.expirationWindow", text)
            })?,
    };
    Ok(Spec::AccessGrant(AccessGrant {
        redemptions_allowed: allowed,
        expiration_window: window,
        code: spec
            .code
            .filter(|c| !c.0.is_empty())
            .map(code)
            .transpose()?,
        issuer: optional(spec.issuer, "spec.issuer")?,
        settings: spec.settings.unwrap_or_default().0,
    }))
}

pub(super) fn token(spec: raw::AccessToken) -> CheckResult<Spec> {
    let url = required(spec.url.filter(|url| !url.is_empty()), "spec.url")?;
    if !url.starts_with("https://") {
        return Err(field("spec.url", "token url scheme must be https"));
    }
    let ca = spec.ca.map(|ca| ca.0).unwrap_or_default();
    if ca.is_empty() {
        return Err(field("spec.ca", "token does not have a CA"));
    }
    if !ca.contains("-----BEGIN CERTIFICATE-----") {
        return Err(field("spec.ca", "is not a certificate in PEM"));
    }
    let given = required(spec.code.filter(|c| !c.0.is_empty()), "spec.code")?;
    let cost = link_cost(spec.link_cost).map_err(|text| field("spec.linkCost", text))?;
    Ok(Spec::AccessToken(AccessToken {
        url: url.0,
        code: code(given)?,
        ca,
        link_cost: cost,
        settings: spec.settings.unwrap_or_default().0,
    }))
}

fn code(given: raw::HiddenText) -> Result<Code, Problem> {
    if given.0.len() > MAX_CODE {
        let text = format!("is longer than {MAX_CODE} characters");
        return Err(field("spec.code", text));
    }
    Ok(Code::new(&**given.0))
}
