package baseline

import (
	"fmt"

	"remit"
)

// pace is how much an identity does: the counts of the present hour and minute,
// and the highest counts of before. A highest count fades by a sixteenth a day,
// which leaves two thirds of it after a week: enough to know a weekly job again.
type pace struct {
	minute                   uint32 // of the last event, since 1970
	inHour, inMinute         uint32
	denied, failed           uint32 // in this hour
	limitHour, limitMinute   uint32
	limitDenied, limitFailed uint32
	toldVolume, toldDenied   bool // in this hour
	toldFailed               bool

	minutes, denials, errors uint32
	hours                    [24]uint32
}

// What no identity is suspected for, and how many times the highest count of
// before is a burst.
const (
	fewInHour, fewInMinute, fewErrors = 300, 120, 20
	timesInHour, timesInMinute        = 4, 6
	timesErrors                       = 4
)

// rollMinute starts a new minute.
func (p *pace) rollMinute(now uint32) {
	p.minutes = max(p.minutes, p.inMinute)
	p.minute, p.inMinute = now, 0
	p.limitMinute = limit(p.minutes, timesInMinute, fewInMinute)
}

// rollHour starts a new hour, both since 1970; last is 0 for the first.
func (p *pace) rollHour(last, now uint32) {
	p.minutes, p.inMinute = max(p.minutes, p.inMinute), 0
	p.hours[last%24] = max(p.hours[last%24], p.inHour)
	p.denials, p.errors = max(p.denials, p.denied), max(p.errors, p.failed)
	if last != 0 {
		p.fade(min(now/24-last/24, 256)) // nothing is left of any count after that
	}
	p.inHour, p.denied, p.failed = 0, 0, 0
	p.toldVolume, p.toldDenied, p.toldFailed = false, false, false
	p.limitHour = limit(p.usual(now%24), timesInHour, fewInHour)
	p.limitDenied = limit(p.denials, timesErrors, fewErrors)
	p.limitFailed = limit(p.errors, timesErrors, fewErrors)
}

// usual is the most at that hour of the day, or at its neighbours: a job that
// usually starts before the full hour may start after it.
func (p *pace) usual(of uint32) uint32 {
	return max(p.hours[of], p.hours[(of+1)%24], p.hours[(of+23)%24])
}

func (p *pace) fade(days uint32) {
	for range days {
		for i := range p.hours {
			p.hours[i] -= (p.hours[i] + 15) / 16
		}
		p.minutes -= (p.minutes + 15) / 16
		p.denials -= (p.denials + 15) / 16
		p.errors -= (p.errors + 15) / 16
	}
}

func limit(usual, times, least uint32) uint32 {
	return max(min(usual, 1<<29)*times, least)
}

// bursts tells of far more activities, denials or errors than ever before at
// that time of the day.
func (b *Baselines) bursts(id *identity, s *seen, settling bool, found []remit.Signal) []remit.Signal {
	p := &id.pace
	if s.t/hour < id.hour {
		return found // late: its hour is closed
	}
	p.inHour = sum(p.inHour, 1)
	minute := s.t / 60
	if minute > p.minute {
		p.rollMinute(minute)
	}
	if minute == p.minute {
		p.inMinute = sum(p.inMinute, 1)
	}
	switch s.a.Outcome {
	case remit.Denied:
		p.denied = sum(p.denied, 1)
	case remit.Failed:
		p.failed = sum(p.failed, 1)
	}
	if p.inHour <= p.limitHour && p.inMinute <= p.limitMinute && p.denied <= p.limitDenied && p.failed <= p.limitFailed ||
		!id.learned || settling {
		return found
	}
	of := id.hour % 24
	if over := p.inHour > p.limitHour; !p.toldVolume && (over || p.inMinute > p.limitMinute) {
		p.toldVolume = true
		words := fmt.Sprintf("%d activities within a minute; the most before was about %d", p.inMinute, p.minutes)
		if over {
			words = fmt.Sprintf("%d activities since %02d:00 UTC; at this time of the day the most in an hour was about %d",
				p.inHour, of, p.usual(of))
		}
		found = append(found, s.signal(volume, words))
	}
	if !p.toldDenied && p.denied > p.limitDenied {
		p.toldDenied = true
		found = append(found, s.signal(denials, fmt.Sprintf("%d of %d activities since %02d:00 UTC were denied; the most in an hour before was about %d",
			p.denied, p.inHour, of, p.denials)))
	}
	if !p.toldFailed && p.failed > p.limitFailed {
		p.toldFailed = true
		found = append(found, s.signal(failures, fmt.Sprintf("%d of %d activities since %02d:00 UTC failed; the most in an hour before was about %d",
			p.failed, p.inHour, of, p.errors)))
	}
	return found
}
