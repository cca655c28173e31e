package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// outputFlag adds -o to a command that a script may want to read.
func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "output `FORMAT`: json, for a machine to read")
}

// checkOutput refuses formats that there are not. On any error standard output
// stays empty.
func checkOutput(output string) error {
	if output != "" && output != "json" {
		return fmt.Errorf("output %q: use json, or leave it out", output)
	}
	return nil
}

// exactly makes a command take one argument for each of its nouns; list is the
// command that shows what there is.
func exactly(noun, list string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		want := len(strings.Fields(cmd.Use)) - 1
		if len(args) == want {
			return nil
		}
		usage := strings.TrimSuffix(cmd.CommandPath(), " "+cmd.Name()) + " " + cmd.Use
		if len(args) < want {
			return fmt.Errorf("%s: name %s: write: %s: see what there is with: %s", cmd.CommandPath(), noun, usage, list)
		}
		return fmt.Errorf("%s: %q is too much: write: %s", cmd.CommandPath(), strings.Join(args[want:], " "), usage)
	}
}

// explainUsage makes every command below cmd say what to do about arguments and
// flags that it does not have.
func explainUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%s: %w: see what there is with: %s --help", cmd.CommandPath(), err, cmd.CommandPath())
	})
	for _, c := range cmd.Commands() {
		explainUsage(c)
		if c.HasSubCommands() && !c.Runnable() {
			// Without this cobra prints its help, and a script goes on.
			c.Args = noSuchCommand
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			continue
		}
		if args := c.Args; args != nil && !c.Hidden {
			c.Args = func(cmd *cobra.Command, given []string) error {
				err := args(cmd, given)
				if err == nil || strings.HasPrefix(err.Error(), cmd.CommandPath()) {
					return err
				}
				if cmd.HasSubCommands() {
					return noSuchCommand(cmd, given)
				}
				return fmt.Errorf("%s: %w: see how it is used with: %s --help", cmd.CommandPath(), err, cmd.CommandPath())
			}
		}
	}
}

// noSuchCommand refuses what is no command of cmd, and names what it may mean.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	meant := ""
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		meant = ": did you mean: " + cmd.CommandPath() + " " + like[0]
	}
	return fmt.Errorf("%s: there is no command %q%s: see all with: %s --help", cmd.CommandPath(), args[0], meant, cmd.CommandPath())
}
