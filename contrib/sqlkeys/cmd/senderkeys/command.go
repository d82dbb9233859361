package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "senderkeys",
		Short:         "Manage senders and their API keys",
		Long:          about,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().StringVar(&a.db, "db", "", "PostgreSQL URL or path of a SQLite file (SENDERAUTH_DB)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(a.migrate(), a.sender(), a.key(), a.usage(), a.audit())
	root.SetHelpCommand(help())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.RunE = showHelp
		}
	}
	return root
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
