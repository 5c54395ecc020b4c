// Ranks that are threads: what travels between them lies on a table, where each takes what is for it.
#pragma once
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <thread>

#include "train/ranks.h"

namespace hadal::train {

class LocalRanks {
 public:
  explicit LocalRanks(int size) : barrier_(size), lists_(size_t(size)), parcels_(size_t(size)) {}

  // f once on each rank, at the same time. divided: the experts are.
  void run(bool divided, const std::function<void(const Ranks&)>& f) {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < size(); ++rank) threads.emplace_back([&, rank] { f(ranks(rank, divided)); });
  }
  int64_t travelled() const { return travelled_; }  // numbers that one rank sent to another

 private:
  int size() const { return int(lists_.size()); }

  Ranks ranks(int rank, bool divided) {
    Ranks r{.rank = rank, .size = size(), .sum = [this, rank](std::vector<Tensor>& tensors) { sum(rank, tensors); }};
    if (divided)
      r.exchange = [this, rank](const Tensor& rows, const Ranks::Counts& sent, const Ranks::Counts& received) {
        return exchange(rank, rows, sent, received);
      };
    return r;
  }

  void sum(int rank, std::vector<Tensor>& tensors) {
    const torch::NoGradGuard no_grad;
    lists_[size_t(rank)] = &tensors;
    barrier_.arrive_and_wait();
    std::vector<Tensor> sums;
    for (size_t i = 0; i < tensors.size(); ++i) {
      Tensor total = (*lists_[0])[i].clone();
      for (size_t other = 1; other < lists_.size(); ++other) total += (*lists_[other])[i];
      sums.push_back(total);
    }
    barrier_.arrive_and_wait();
    for (size_t i = 0; i < tensors.size(); ++i) tensors[i].copy_(sums[i]);
  }

  Tensor exchange(int rank, const Tensor& rows, const Ranks::Counts& sent, const Ranks::Counts& received) {
    parcels_[size_t(rank)] = rows.split_with_sizes(sent);
    for (size_t to = 0; to < sent.size(); ++to)
      if (int(to) != rank) travelled_ += parcels_[size_t(rank)][to].numel();
    barrier_.arrive_and_wait();
    std::vector<Tensor> mine;
    for (size_t from = 0; from < received.size(); ++from) {
      mine.push_back(parcels_[from][size_t(rank)]);
      EXPECT_EQ(mine.back().size(0), received[from]) << "rank " << rank << " from " << from;
    }
    Tensor result = torch::cat(mine);
    barrier_.arrive_and_wait();
    return result;
  }

  std::barrier<> barrier_;
  std::vector<std::vector<Tensor>*> lists_;
  std::vector<std::vector<Tensor>> parcels_;
  std::atomic<int64_t> travelled_ = 0;
};

}  // namespace hadal::train
