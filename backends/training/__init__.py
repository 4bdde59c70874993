"""Fine-tuning: LoRA, quantisation-aware and full, on dialogues and on preferences, with torch and peft."""
