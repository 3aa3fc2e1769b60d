package main

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"remit"
	"remit/report"
)

// outputFlags say how a command shows what it found.
type outputFlags struct {
	format  string
	output  string
	color   string
	verbose bool
	formats []string
}

func (f *outputFlags) add(cmd *cobra.Command, formats ...string) {
	f.formats = formats
	flags := cmd.Flags()
	flags.StringVarP(&f.format, "format", "f", "table", "output format: `"+strings.Join(formats, "|")+"`")
	flags.StringVarP(&f.output, "output", "o", "", "write to a `file` instead of standard output; it is put in place when it is complete")
	flags.StringVar(&f.color, "color", "auto", "colours in tables: `auto|always|never`")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show evidence and remedies, and all of every list")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// check refuses unknown words before any work is done.
func (f *outputFlags) check() error {
	if !slices.Contains(f.formats, f.format) {
		return remit.Errorf(remit.Invalid, "", "no format %q: use %s", f.format, strings.Join(f.formats, ", "))
	}
	if !slices.Contains([]string{"auto", "always", "never"}, f.color) {
		return remit.Errorf(remit.Invalid, "", "--color %q: use auto, always or never", f.color)
	}
	return nil
}

// write calls render with where the output goes. A file appears only when it is
// complete.
func (f *outputFlags) write(cmd *cobra.Command, render func(io.Writer, report.TableOptions) error) error {
	if f.output == "" {
		out := cmd.OutOrStdout()
		options := report.TableOptions{Verbose: f.verbose, Color: f.color == "always", Command: cmd.CommandPath()}
		if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			if width, _, err := term.GetSize(int(file.Fd())); err == nil {
				options.Width = max(width, 40)
			}
			options.Color = options.Color || f.color == "auto" && os.Getenv("NO_COLOR") == ""
		}
		buffered := bufio.NewWriter(out)
		if err := render(buffered, options); err != nil {
			return notWritten(err)
		}
		return notWritten(buffered.Flush())
	}
	file, err := os.CreateTemp(filepath.Dir(f.output), ".remit-*")
	if err != nil {
		return remit.Errorf(remit.Invalid, "write output", "%w", err)
	}
	defer os.Remove(file.Name())
	buffered := bufio.NewWriter(file)
	err = render(buffered, report.TableOptions{Verbose: f.verbose, Color: f.color == "always", Command: cmd.CommandPath()})
	if err == nil {
		err = buffered.Flush()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return notWritten(err)
	}
	if err := os.Rename(file.Name(), f.output); err != nil {
		return remit.Errorf(remit.Invalid, "write output", "%w", err)
	}
	return nil
}

// notWritten tells a full disk or a closed pipe from a fault of ours.
func notWritten(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return remit.Errorf(remit.Unavailable, "write output", "%w", err)
	}
	return err
}
