package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/senderauth/senderauth/contrib/internal/tools/modules"
)

// prove uses the release as a stranger would, with the oldest Go that it supports and with
// the Go of this machine.
func (r *release) prove(ctx context.Context, clone string) error {
	env, err := r.goEnv(ctx)
	if err != nil {
		return err
	}
	oldest := "go" + r.modules[0].File.Go.Version
	for _, toolchain := range []string{oldest, "local"} {
		root, err := command(ctx, r.temp, []string{"GOTOOLCHAIN=" + toolchain}, "go", "env", "GOROOT")
		if err != nil {
			return err
		}
		p := proof{release: r, gocmd: filepath.Join(root, "bin", "go"), env: env}
		version, err := p.run(ctx, r.temp, "env", "GOVERSION")
		if err != nil {
			return err
		}
		if toolchain == "local" && version == oldest {
			continue
		}
		for _, m := range r.modules {
			if !m.Published() || m.Internal() {
				continue
			}
			if err := p.module(ctx, m, filepath.Join(clone, m.Dir)); err != nil {
				return fmt.Errorf("with %s, module %s: %w", version, m.Path(), err)
			}
			r.say("ok: %s@%s with %s", m.Path(), r.version, version)
		}
	}
	return nil
}

// A proof runs one version of Go in scratch modules.
type proof struct {
	*release
	gocmd string
	env   []string
}

func (p *proof) run(ctx context.Context, dir string, args ...string) (string, error) {
	return command(ctx, dir, p.env, p.gocmd, args...)
}

// module gets one module into an empty module, imports all of its packages, and installs
// its commands.
func (p *proof) module(ctx context.Context, m *modules.Module, source string) (err error) {
	libraries, commands, err := p.packages(ctx, source)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(p.temp, "scratch-")
	if err != nil {
		return err
	}
	text := "package main\n\nimport (\n"
	for _, l := range libraries {
		text += fmt.Sprintf("\t_ %q\n", l)
	}
	text += ")\n\nfunc main() {}\n"
	if err := os.WriteFile(filepath.Join(scratch, "main.go"), []byte(text), 0o644); err != nil {
		return err
	}
	for _, args := range []string{
		"mod init example.com/scratch",
		"get " + m.Path() + "@" + p.version,
		"mod tidy",
		"build ./...",
		"vet ./...",
	} {
		if _, err := p.run(ctx, scratch, strings.Fields(args)...); err != nil {
			return err
		}
	}
	for _, c := range commands {
		if err := p.install(ctx, scratch, c); err != nil {
			return err
		}
	}
	return nil
}

// packages lists the packages of a module that others can import, and its commands.
func (p *proof) packages(ctx context.Context, dir string) (libraries, commands []string, err error) {
	list, err := p.run(ctx, dir, "list", "-f", "{{.Name}} {{.ImportPath}}", "./...")
	if err != nil {
		return nil, nil, err
	}
	for line := range strings.Lines(list) {
		name, importPath, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case strings.Contains(importPath, "/internal/"):
		case name == "main":
			commands = append(commands, importPath)
		default:
			libraries = append(libraries, importPath)
		}
	}
	return libraries, commands, nil
}

// install installs a command from the proxy and asks it for its version.
func (p *proof) install(ctx context.Context, scratch, importPath string) error {
	bin := filepath.Join(scratch, "bin")
	if _, err := command(ctx, p.temp, append(p.env, "GOBIN="+bin), p.gocmd, "install", importPath+"@"+p.version); err != nil {
		return err
	}
	name := filepath.Base(importPath)
	says, err := command(ctx, scratch, nil, filepath.Join(bin, name), "--version")
	if err != nil {
		return err
	}
	if !strings.Contains(says, p.version) {
		return fmt.Errorf("%s --version says %q, want %s", name, says, p.version)
	}
	return nil
}
