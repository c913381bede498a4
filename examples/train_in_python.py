"""Train a captioner on Scenes in Python, and export it: ``python examples/train_in_python.py``."""

from lightning import Trainer

import synth2_lightning as synth2

encoder = synth2.VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")
resampler = synth2.PerceiverResampler(num_latents=16, depth=2, num_heads=4, num_positions=encoder.num_tokens)
network = {"model_type": "gpt2", "n_embd": 192, "n_layer": 3, "n_head": 4, "n_positions": 64}
language_model = synth2.NewLanguageModel(network, "package://synth2_lightning/scenes/vocabulary")
model = synth2.VisionLanguageModule(encoder, resampler, synth2.PrefixDecoder(language_model))

train, val = synth2.ScenesSource("train", num_images=8192), synth2.ScenesSource("val", num_images=512)
real = synth2.RealDataModule(train, val, batch_size=64)
synthetic = synth2.SyntheticDataModule("package://synth2_lightning/scenes/shards")
data = synth2.MixedDataModule(real, synthetic, 64, synth2.ConstantFraction(0.5), image_encoder=encoder)

trainer = Trainer(max_steps=320)
trainer.fit(model, data)
synth2.Captioner(model).save_pretrained("my-captioner")
