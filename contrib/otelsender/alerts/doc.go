// Package alerts holds alerts for Prometheus (rules.yml) and a dashboard for Grafana
// (dashboard.json) on the metrics of otelsender. Its tests hold both against a Prometheus
// that scrapes a guard.
package alerts
