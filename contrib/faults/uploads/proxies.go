package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
)

// A path is a way from a client to the two servers, directly or through a proxy. addr is
// the host and port of the URLs, or empty without a proxy.
type path struct {
	name string
	addr string
}

const direct = "none" // name of the path without a proxy

// A proxy is a program that forwards requests to the servers.
type proxy struct {
	program string
	paths   []string // names; each path has its own port
	// config returns the configuration for these ports, and command the command line.
	// Both may use files in dir.
	config  func(dir string, ports []int, plain, guarded string) string
	command func(dir, file string, ports []int) []string
}

var proxies = []proxy{
	{
		program: "nginx",
		paths:   []string{"nginx", "nginx, HTTP/1.1", "nginx, unbuffered", "nginx, HTTP/1.1 unbuffered"},
		config:  nginx,
		command: func(dir, file string, _ []int) []string {
			return []string{"nginx", "-p", dir, "-c", file, "-e", "stderr"}
		},
	},
	{
		program: "haproxy",
		paths:   []string{"HAProxy"},
		config:  haproxy,
		command: func(_, file string, _ []int) []string { return []string{"haproxy", "-db", "-f", file} },
	},
	{
		program: "apache2",
		paths:   []string{"Apache"},
		config:  apache,
		command: func(_, file string, _ []int) []string { return []string{"apache2", "-DFOREGROUND", "-f", file} },
	},
	{
		program: "varnishd",
		paths:   []string{"Varnish"},
		config:  varnish,
		command: func(dir, file string, ports []int) []string {
			return []string{"varnishd", "-F", "-j", "none", "-n", filepath.Join(dir, "varnish"), "-a", local(ports[0]), "-f", file}
		},
	},
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// nginx returns a configuration with one server for each common way to forward. By
// default nginx talks HTTP/1.0 and reads the whole upload first.
func nginx(dir string, ports []int, plain, guarded string) string {
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	var servers strings.Builder
	for i, set := range []string{"", "proxy_http_version 1.1;", "proxy_request_buffering off;", "proxy_http_version 1.1; proxy_request_buffering off;"} {
		fmt.Fprintf(&servers, `
	server {
		listen %s;
		%s
		location /plain { proxy_pass http://%s; }
		location /guarded { proxy_pass http://%s; }
	}`, local(ports[i]), set, plain, guarded)
	}
	return fmt.Sprintf(`%s
daemon off;
pid %s/nginx.pid;
events {}
http {
	access_log off;
	client_max_body_size 0;
	client_body_temp_path %[2]s/nginx-body;
	proxy_temp_path %[2]s/nginx-proxy;
	fastcgi_temp_path %[2]s/nginx-fastcgi;
	uwsgi_temp_path %[2]s/nginx-uwsgi;
	scgi_temp_path %[2]s/nginx-scgi;%s
}
`, user, dir, servers.String())
}

func haproxy(_ string, ports []int, plain, guarded string) string {
	return fmt.Sprintf(`defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
frontend uploads
	bind %s
	use_backend plain if { path_beg /plain }
	use_backend guarded if { path_beg /guarded }
backend plain
	server plain %s
backend guarded
	server guarded %s
`, local(ports[0]), plain, guarded)
}

func apache(dir string, ports []int, plain, guarded string) string {
	return fmt.Sprintf(`ServerRoot %s
ServerName localhost
PidFile apache.pid
DefaultRuntimeDir %[1]s
Mutex file:%[1]s default
ErrorLog /dev/stderr
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
Listen %s
ProxyPass /plain http://%s/plain
ProxyPass /guarded http://%s/guarded
`, dir, local(ports[0]), plain, guarded)
}

func varnish(_ string, _ []int, plain, guarded string) string {
	backend := func(name, addr string) string {
		host, port, _ := net.SplitHostPort(addr)
		return fmt.Sprintf("backend %s { .host = %q; .port = %q; }\n", name, host, port)
	}
	return "vcl 4.1;\n" + backend("plain", plain) + backend("guarded", guarded) + `sub vcl_recv {
	if (req.url ~ "^/guarded") { set req.backend_hint = guarded; } else { set req.backend_hint = plain; }
	return (pass);
}
`
}

// start starts the proxy, waits until it listens, and returns its paths.
func (p proxy) start(dir, plain, guarded string) (*testservers.Process, []path, error) {
	if _, err := exec.LookPath(p.program); err != nil {
		return nil, nil, err
	}
	var ports []int
	var paths []path
	for _, name := range p.paths {
		port, err := testservers.FreePort()
		if err != nil {
			return nil, nil, err
		}
		ports = append(ports, port)
		paths = append(paths, path{name, local(port)})
	}
	file := filepath.Join(dir, p.program+".conf")
	if err := os.WriteFile(file, []byte(p.config(dir, ports, plain, guarded)), 0o600); err != nil {
		return nil, nil, err
	}
	log := filepath.Join(dir, p.program+".log")
	process, err := testservers.Start(testservers.Command{Args: p.command(dir, file, ports), Log: log, End: "TERM"})
	if err != nil {
		return nil, nil, err
	}
	for _, w := range paths {
		if err := await(w.addr); err != nil {
			text, _ := os.ReadFile(log)
			return nil, nil, errors.Join(fmt.Errorf("%s: %w\n%s", p.program, err, text), process.End(""))
		}
	}
	return process, paths, nil
}

// await waits until a server listens at addr.
func await(addr string) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}
