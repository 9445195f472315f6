"""A pair goes to other formats and comes back with the same bytes.

export       parquet, JSON lines, COCO, a card; checksums: of all its files
imports      parquet to records; shard_writer: their shards and manifest
foreign      other people's rows: foreign_pictures, foreign_boxes, bad_row
example      a pair as a conversation; parquet: tables
dataset_card the card of an export; easyr1_reward: the reward as one file for EasyR1

Imports: boxes, common, config, data.records, data.scene, inputs.
"""
