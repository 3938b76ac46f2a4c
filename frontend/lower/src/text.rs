//! How history rows write values: the way Go prints them.

use lapstrake_go::{duration, quoted};
use lapstrake_oci::Healthcheck;

/// `[a b]`
pub(crate) fn list(items: &[String]) -> String {
    format!("[{}]", items.join(" "))
}

/// `["a" "b"]`
pub(crate) fn quoted_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    list(&items)
}

/// `{Test:[CMD x] Interval:1s … Retries:5}`
pub(crate) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration::text(check.interval),
        duration::text(check.timeout),
        duration::text(check.start_period),
        duration::text(check.start_interval),
        check.retries
    )
}
