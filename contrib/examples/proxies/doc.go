// Package proxies tests nginx, HAProxy and Apache in front of a server with a guard, with
// the configurations beside it.
package proxies
