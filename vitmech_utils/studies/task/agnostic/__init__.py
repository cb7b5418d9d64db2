"""One set of heads for three tasks? Orders of heads by shift, fine-tuned and of the untuned backbone under probes."""
