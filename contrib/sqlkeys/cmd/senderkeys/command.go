package main

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "senderkeys",
		Short:         "Manage senders and their API keys",
		Long:          about,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().StringVar(&a.db, "db", "", "PostgreSQL `URL` or path of a SQLite file (default $SENDERAUTH_DB)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(a.migrate(), a.sender(), a.key(), a.usage(), a.audit(), a.prune())
	root.SetHelpCommand(help())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.RunE = showHelp
		}
	}
	addExamples(root)
	return root
}

// version returns the version of the module, as the Go command recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// oneArg accepts one argument, which the usage of the command names.
func oneArg(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	_, name, _ := strings.Cut(cmd.Use, " ")
	return fmt.Errorf("%s takes one %s, not %d arguments", cmd.CommandPath(), name, len(args))
}

// group returns a command that only has subcommands.
func group(use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: showHelp}
}

// showHelp is the RunE of a group. cobra takes a wrong subcommand of a command
// without one as a request for help.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// help replaces the command of cobra, which succeeds for unknown commands.
func help() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return fmt.Errorf("unknown command %q for %q", rest[0], about.CommandPath())
			}
			return about.Help()
		},
	}
}
