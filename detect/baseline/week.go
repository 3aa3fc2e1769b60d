package baseline

import (
	"fmt"
	"time"

	"remit"
)

// week is when an identity is active: on how many days in each hour of the day,
// and on how many days of the week, all in UTC. All are halved when one would not
// fit, so that old habits fade.
type week struct {
	hours [24]uint8
	days  [7]uint8 // from Sunday
	seen  uint8    // active days, up to 255
	told  uint16   // the day of the last signal, since 1970
}

const (
	// fewDays is how many active days an identity must have had before an
	// hour is unusual, and fewWeekdays before a weekday is.
	fewDays, fewWeekdays = 5, 9
	// mostHours is in how many hours of the day an identity may be active
	// before it is taken to have no hours.
	mostHours = 14
)

// unusualHour is asked when an hour begins; it tells of an identity with regular
// hours that acts outside of them.
func (b *Baselines) unusualHour(id *identity, s *seen, now uint32, newDay bool, found []remit.Signal) []remit.Signal {
	w := &id.week
	of, weekday := now%24, (now/24+4)%7 // 1 January 1970 was a Thursday
	if id.learned && w.told != uint16(now/24) {
		if why := w.unusual(of, weekday, newDay); why != "" {
			w.told = uint16(now / 24)
			signal := s.signal(unusualTime, why+"; now "+s.what()+s.whence())
			found = append(found, signal)
		}
	}
	add(w.hours[:], of)
	if newDay {
		add(w.days[:], weekday)
		w.seen += min(1, 255-w.seen)
	}
	return found
}

func (w *week) unusual(of, weekday uint32, newDay bool) string {
	if newDay && w.seen >= fewWeekdays && w.days[weekday] == 0 {
		active := 0
		for _, n := range w.days {
			if n > 0 {
				active++
			}
		}
		// With one weekday only it is a weekly job, which may be late.
		if active > 1 && active < 6 {
			return fmt.Sprintf("never before was it active on a %s, in %s", time.Weekday(weekday), count(int(w.seen), "active day"))
		}
	}
	if w.seen < fewDays || w.hours[of] > 0 || w.hours[(of+1)%24] > 0 || w.hours[(of+23)%24] > 0 {
		return ""
	}
	active := 0
	for _, n := range w.hours {
		if n > 0 {
			active++
		}
	}
	if active > mostHours {
		return ""
	}
	return fmt.Sprintf("never before was it active near %02d:00 UTC, in %s of at most %s", of,
		count(int(w.seen), "active day"), count(active, "hour"))
}

func add(bins []uint8, at uint32) {
	if bins[at] == 255 {
		for i := range bins {
			bins[i] -= bins[i] / 2
		}
	}
	bins[at]++
}
