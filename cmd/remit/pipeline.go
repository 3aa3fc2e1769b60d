package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"remit/activity"
	"remit/activity/archive"
	"remit/detect"
)

// activityFlags tune how a command reads events.
type activityFlags struct {
	noArchive  bool
	noRaw      bool
	noBaseline bool
	rulesFlags
}

func (f *activityFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.noArchive, "no-archive", false, "keep no events, only what is counted and found")
	flags.BoolVar(&f.noRaw, "no-raw", false, "keep the columns of events and not the raw events")
	flags.BoolVar(&f.noBaseline, "no-baselines", false, "learn no behaviour")
	f.rulesFlags.add(cmd)
}

// openedPipeline is a pipeline on a data directory.
type openedPipeline struct {
	*activity.Pipeline
	archive *archive.Archive
	close   []func() error
}

// openPipeline makes the pipeline that writes activity into a data directory,
// for one process at a time.
func (f *activityFlags) openPipeline(ctx context.Context, data *dataDir) (_ *openedPipeline, err error) {
	p := new(openedPipeline)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	unlock, err := lockFile(filepath.Join(data.path, "activity.lock"), "lock activity",
		"another process writes activity into this data directory: wait until its import has ended, or send the events to the running `remit serve`")
	if err != nil {
		return nil, err
	}
	p.close = append(p.close, func() error { unlock(); return nil })

	engine, unsupported, faulty, err := f.engine()
	if err != nil {
		return nil, err
	}
	tell(os.Stderr, unsupported, faulty)
	detector, err := detect.New(ctx, detect.Options{Engine: engine, States: data.Store, BaselineOff: f.noBaseline})
	if err != nil {
		return nil, err
	}
	options := activity.Options{Store: data.Store, Decoders: decoders, Detector: detector, NoRaw: f.noRaw}
	if !f.noArchive {
		if p.archive, err = archive.Open(filepath.Join(data.path, "archive"), archive.Options{NoRaw: f.noRaw}); err != nil {
			return nil, err
		}
		p.close = append(p.close, p.archive.Close)
		options.Archive = p.archive
	}
	dead, err := data.deadLetters()
	if err != nil {
		return nil, err
	}
	options.DeadLetter = dead.Put
	p.Pipeline = activity.New(options)

	recovered, err := p.Recover(ctx)
	if err != nil {
		return nil, err
	}
	for _, lost := range recovered.Lost {
		fmt.Fprintf(os.Stderr, "remit: archive file %s is lost: %s\n", lost.Path, lost.Reason)
	}
	return p, nil
}

// Close ends the pipeline; what was not checkpointed is read again the next time.
func (p *openedPipeline) Close() error {
	var all []error
	for i := len(p.close) - 1; i >= 0; i-- {
		all = append(all, p.close[i]())
	}
	p.close = nil
	return errors.Join(all...)
}
